"""What a worker and its job's followers hear of each other, against a real Redis."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.job import State
from tests.jobs.leases.support import (
    JOKE,
    MakeLeases,
    tell,
    until,
)

if TYPE_CHECKING:
    from tests.jobs.conftest import MakeRequest

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


async def test_work_sees_that_its_job_was_cancelled(
    queue: CeleryRedisQueue, make_leases: MakeLeases, make_request: MakeRequest
) -> None:
    job = await queue.submit(make_request())
    begun = threading.Event()

    def patient(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        begun.set()
        end = time.monotonic() + 50
        while not listener.should_stop():
            assert time.monotonic() < end
            time.sleep(0.02)
        return []

    leases = make_leases()
    with leases:
        work = asyncio.create_task(asyncio.to_thread(leases.work_on, job.id, patient))
        await asyncio.to_thread(begun.wait, 50)
        await queue.cancel(job.id)
        await work
    assert (await queue.get(job.id)).state is State.REVOKED


async def test_text_that_reaches_a_slow_client_after_its_joke_is_not_shown(
    queue: CeleryRedisQueue, make_leases: MakeLeases, make_request: MakeRequest
) -> None:
    job = await queue.submit(make_request(count=2))
    told, go = threading.Event(), threading.Event()

    def work(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        time.sleep(0.3)
        listener.on_draft(0, "What", "")
        listener.on_joke(0, JOKE)
        told.set()
        go.wait(50)
        return [JOKE, JOKE]

    leases = make_leases(lease_seconds=50)
    working = asyncio.create_task(asyncio.to_thread(leases.work_on, job.id, work))
    heard = []
    async with aclosing(queue.events(job.id)) as events:  # type: ignore[type-var]
        async for event in events:
            heard.append(event.name)
            if heard == ["state", "state"]:
                await asyncio.to_thread(told.wait, 50)
                await asyncio.sleep(0.2)  # both messages arrive meanwhile
            if event.name == "joke":
                go.set()
    await working
    assert heard == ["state", "state", "joke", "joke", "state"]


async def test_drafts_are_sent_only_to_those_who_read_them(
    queue: CeleryRedisQueue, make_leases: MakeLeases, make_request: MakeRequest
) -> None:
    wanted: list[bool] = []
    draw = threading.Semaphore(0)

    def work(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        time.sleep(0.2)  # no draft is sent right away
        for _ in range(2):
            draw.acquire(timeout=50)
            listener.on_draft(0, "What", "")
            wanted.append(listener.wants_drafts())
            time.sleep(0.2)
        draw.acquire(timeout=50)
        return [JOKE]

    async def follow(*, drafts: bool) -> None:
        async for event in queue.events(job.id, drafts=drafts):
            heard[drafts].append(event.name)

    job = await queue.submit(make_request(count=1))
    heard: dict[bool, list[str]] = {True: [], False: []}
    leases = make_leases(lease_seconds=50)
    working = asyncio.create_task(asyncio.to_thread(leases.work_on, job.id, work))
    counting = asyncio.create_task(follow(drafts=False))
    await until(lambda: len(heard[False]) == 2)
    draw.release()
    await until(lambda: len(wanted) == 1)
    reading = asyncio.create_task(follow(drafts=True))
    await until(lambda: len(heard[True]) == 2)
    draw.release()
    await until(lambda: len(heard[True]) == 3)
    draw.release()
    await asyncio.gather(working, counting, reading)
    assert wanted == [False, True]
    assert heard[False] == ["state", "state", "joke", "state"]
    assert heard[True] == ["state", "state", "partial", "joke", "state"]


@pytest.mark.parametrize(("pause_seconds", "reads"), [(0.0, 0), (1.2, 1)])
async def test_a_job_is_read_again_only_if_nobody_follows_it_soon(
    pause_seconds: float,
    reads: int,
    queue: CeleryRedisQueue,
    make_leases: MakeLeases,
    make_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = await queue.submit(make_request())
    await queue.wait(other.id, 0.5)  # connects to the channel of changes
    await asyncio.wait_for(queue._watcher._listening.wait(), 50)
    job = await queue.submit(make_request(count=1))
    calls = []
    run = queue._call

    async def call(*arguments: Any) -> Any:
        calls.append(arguments)
        return await run(*arguments)

    monkeypatch.setattr(queue, "_call", call)
    await asyncio.sleep(pause_seconds)
    waiting = asyncio.create_task(queue.wait(job.id, 50))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(make_leases().work_on, job.id, tell)
    assert (await waiting).state is State.SUCCESS
    assert sum(job.id in arguments for arguments in calls) == reads
