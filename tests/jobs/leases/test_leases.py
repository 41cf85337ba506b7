"""The workers' side against a real Redis, without Celery: who may say what, and when."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from joker.core.errors import QueueDownError
from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.engines.tasks import SEQUENCE_TOKENS
from joker.generation.request import GenerationRequest
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.job import State
from joker.jobs.leases import Leases
from joker.jobs.queue import MAX_RUNNING_TOKENS
from tests.jobs.leases.support import (
    JOKE,
    LEASE_SECONDS,
    Fetch,
    MakeLeases,
    change_record,
    tell,
    until,
)

if TYPE_CHECKING:
    from tests.jobs.conftest import MakeRequest

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


async def test_of_many_messages_for_one_job_one_is_worked_on(
    queue: CeleryRedisQueue, make_leases: MakeLeases, make_request: MakeRequest
) -> None:
    job = await queue.submit(make_request())
    begun = []

    def slow(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        begun.append(request)
        time.sleep(0.2)
        return [JOKE]

    leases = make_leases()
    await asyncio.gather(*(asyncio.to_thread(leases.work_on, job.id, slow) for _ in range(4)))
    leases.work_on(job.id, slow)
    leases.work_on("unknown", slow)
    assert len(begun) == 1
    assert (await queue.get(job.id)).state is State.SUCCESS


async def test_a_lease_is_renewed_while_work_goes_on(
    queue: CeleryRedisQueue, make_leases: MakeLeases, make_request: MakeRequest
) -> None:
    job = await queue.submit(make_request())

    def slow(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        time.sleep(5)
        return [JOKE]

    working = make_leases(lease_seconds=3)
    sweeping = make_leases(lease_seconds=3)
    with working, sweeping:
        await asyncio.to_thread(working.work_on, job.id, slow)
    done = await queue.get(job.id)
    assert (done.state, done.attempts) == (State.SUCCESS, 1)


async def test_whoever_lost_the_lease_is_not_heard_any_more(
    queue: CeleryRedisQueue, make_leases: MakeLeases, fetch: Fetch, make_request: MakeRequest
) -> None:
    job = await queue.submit(make_request())
    go, begun, heard = threading.Event(), threading.Event(), []

    def silent(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        begun.set()
        go.wait(50)
        listener.on_joke(0, GeneratedJoke("What comes late?", "This.", 8, 1))
        heard.append(listener.should_stop())
        return [GeneratedJoke("What comes later?", "This.", 8, 1)]

    dead = make_leases()
    lost = asyncio.create_task(asyncio.to_thread(dead.work_on, job.id, silent))
    await asyncio.to_thread(begun.wait, 50)
    assert fetch() == [job.id]
    alive = make_leases()
    with alive:
        await until(lambda: fetch() == [job.id])
    alive.work_on(job.id, tell)
    go.set()
    await lost
    assert heard == [True]
    done = await queue.get(job.id)
    assert (done.state, done.attempts, done.jokes) == (State.SUCCESS, 2, (JOKE,))


async def test_a_job_lost_three_times_fails(
    queue: CeleryRedisQueue, make_leases: MakeLeases, fetch: Fetch, make_request: MakeRequest
) -> None:
    job = await queue.submit(make_request())

    def die(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        raise SystemExit

    with make_leases():
        for _ in range(3):
            await until(lambda: fetch() == [job.id])
            dead = make_leases()
            with pytest.raises(SystemExit):
                dead.work_on(job.id, die)
        done = await queue.wait(job.id, 50)
    assert (done.state, done.attempts) == (State.FAILURE, 3)
    assert done.error is not None
    assert "3 attempts" in done.error
    assert (await queue.stats()).waiting == 0


async def test_a_message_that_was_lost_is_published_again_after_one_lease(
    queue: CeleryRedisQueue, make_leases: MakeLeases, fetch: Fetch, make_request: MakeRequest
) -> None:
    job = await queue.submit(make_request())
    assert fetch() == [job.id]
    began = time.monotonic()
    with make_leases(lease_seconds=3):
        await until(lambda: fetch() == [job.id])
    # The sweep's pause comes on top; it took three leases once.
    assert 2.9 < time.monotonic() - began < 8
    assert (await queue.get(job.id)).state is State.PENDING


async def test_a_message_that_waits_is_not_published_again(
    queue: CeleryRedisQueue, make_leases: MakeLeases, fetch: Fetch, make_request: MakeRequest
) -> None:
    job = await queue.submit(make_request())
    with make_leases():
        await asyncio.sleep(3 * LEASE_SECONDS)
    assert fetch() == [job.id]
    assert (await queue.get(job.id)).state is State.PENDING


async def test_a_record_of_a_newer_format_is_left_to_newer_workers(
    url: str,
    queue: CeleryRedisQueue,
    make_leases: MakeLeases,
    fetch: Fetch,
    make_request: MakeRequest,
) -> None:
    newer, ours = [await queue.submit(make_request()) for _ in range(2)]
    change_record(url, newer, "record.v = record.v + 1")
    change_record(url, ours, "record.mood = 'new'")
    assert fetch() == [newer.id, ours.id]
    leases = make_leases()
    with leases:
        heard: list[str] = []

        def hear() -> bool:
            heard.extend(fetch())
            return ours.id in heard

        await until(hear)
        assert heard == [ours.id]
        leases.work_on(newer.id, tell)
        leases.work_on(ours.id, tell)
    assert fetch() == []
    assert (await queue.get(newer.id)).state is State.PENDING
    assert (await queue.get(ours.id)).state is State.SUCCESS
    # What only newer workers understand is still there for them.
    assert change_record(url, ours, "") == b"new"


async def test_jobs_in_hand_that_may_fill_the_batch_twice_leave_no_room(
    queue: CeleryRedisQueue, make_leases: MakeLeases, make_request: MakeRequest
) -> None:
    room = []

    def work(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        room.append(leases.has_room)
        return [JOKE]

    leases = make_leases(lease_seconds=50)
    most = MAX_RUNNING_TOKENS // SEQUENCE_TOKENS
    for candidates in (most - 1, most):
        request = replace(make_request(count=1), candidates=candidates)
        job = await queue.submit(request)
        await asyncio.to_thread(leases.work_on, job.id, work)
    assert room == [True, False]
    assert leases.has_room


async def test_room_is_kept_for_jobs_that_are_not_claimed_yet(
    queue: CeleryRedisQueue, make_leases: MakeLeases, make_request: MakeRequest
) -> None:
    leases = make_leases(lease_seconds=50)
    job = await queue.submit(replace(make_request(), candidates=MAX_RUNNING_TOKENS))
    for job_id in (job.id, "unknown"):
        leases.reserve(job_id, MAX_RUNNING_TOKENS)
        assert not leases.has_room
        await asyncio.to_thread(leases.work_on, job_id, tell)
        assert leases.has_room


async def test_a_worker_counts_while_it_gives_signs_of_life(
    queue: CeleryRedisQueue, make_leases: MakeLeases
) -> None:
    leases = make_leases()
    with leases:
        while (await queue.stats()).workers != 1:
            await asyncio.sleep(0.02)
    assert (await queue.stats()).workers == 0


async def test_work_that_cannot_reach_the_queue_is_left_to_another(
    queue: CeleryRedisQueue, make_leases: MakeLeases, fetch: Fetch, make_request: MakeRequest
) -> None:
    job = await queue.submit(make_request())

    def cut_off(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        raise QueueDownError("the queue's Redis cannot be used")

    assert fetch() == [job.id]
    leases = make_leases()
    with leases:
        with pytest.raises(QueueDownError):
            leases.work_on(job.id, cut_off)
        await until(lambda: fetch() == [job.id])
        leases.work_on(job.id, tell)
    done = await queue.get(job.id)
    assert (done.state, done.attempts) == (State.SUCCESS, 2)


async def test_a_redis_that_is_not_there_is_said_at_the_start() -> None:
    leases = Leases("redis://127.0.0.1:1/0", lease_seconds=1)
    with pytest.raises(QueueDownError, match=r"127\.0\.0\.1:1"), leases:
        raise AssertionError


async def test_records_that_redis_evicted_harm_no_other_job(
    url: str,
    queue: CeleryRedisQueue,
    make_leases: MakeLeases,
    fetch: Fetch,
    make_request: MakeRequest,
) -> None:
    gone = [await queue.submit(make_request()) for _ in range(2)]
    leases = make_leases()
    with pytest.raises(SystemExit):
        leases.work_on(gone[0].id, _die)
    with Redis.from_url(url) as redis:
        redis.delete(*(f"{{joker}}:job:{job.id}" for job in gone))
    job = await queue.submit(make_request())
    assert fetch() == [*(job.id for job in gone), job.id]
    with leases:
        await until(lambda: fetch() == [job.id])
    leases.work_on(job.id, tell)
    assert (await queue.get(job.id)).state is State.SUCCESS


def _die(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
    raise SystemExit
