"""What only the queue in this process promises: it ends with the process, and waits for nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest

from joker.core.errors import QueueStoppedError
from joker.core.joke import GeneratedJoke, Sampling
from joker.engines.protocol import GenerationListener
from joker.engines.tasks import SEQUENCE_TOKENS
from joker.generation.request import GenerationRequest
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import PartialEvent, State, StateEvent
from joker.jobs.queue import MAX_RUNNING_TOKENS, Work
from tests.jobs.events import until_told

if TYPE_CHECKING:
    from tests.jobs.conftest import MakeRequest

pytestmark = pytest.mark.anyio


async def test_closing_revokes_what_is_not_told_and_ends_its_events(
    stub_work: Work, make_request: MakeRequest, gate: Path
) -> None:
    queue = InProcessQueue(stub_work, workers=1)
    told = await queue.submit(make_request())
    told = await queue.wait(told.id, 50)
    running, waiting = [await queue.submit(make_request(f"after {gate}")) for _ in range(2)]
    events = asyncio.create_task(_last_state(queue, waiting.id))
    await asyncio.sleep(0)
    await queue.close()
    assert await events is State.REVOKED
    for job in (running, waiting):
        revoked = await queue.get(job.id)
        assert (revoked.state, revoked.error) == (State.REVOKED, "the server was stopped")
    assert await queue.get(told.id) == told
    with pytest.raises(QueueStoppedError, match="stopping"):
        await queue.submit(make_request())


async def test_jobs_behind_work_that_hangs_fail_by_their_deadline_and_later_ones_are_told(
    stub_work: Work, make_request: MakeRequest, gate: Path
) -> None:
    queue = InProcessQueue(stub_work, workers=1, deadline_seconds=0.5)
    hanging = await queue.submit(make_request(f"deaf {gate}"))
    behind = await queue.submit(make_request())
    for job in (hanging, behind):
        assert (await queue.wait(job.id, 50)).state is State.FAILURE
    gate.touch()
    queue_again = await queue.submit(make_request())
    assert (await queue.wait(queue_again.id, 50)).state is State.SUCCESS
    await queue.close()


@pytest.mark.parametrize(
    "each",
    [
        {"candidates": MAX_RUNNING_TOKENS // SEQUENCE_TOKENS // 2},
        {"candidates": 16, "sampling": Sampling(max_new_tokens=MAX_RUNNING_TOKENS // 32)},
    ],
    ids=["many drafts", "long drafts"],
)
async def test_jobs_wait_while_those_in_hand_may_fill_the_batch_twice(
    stub_work: Work, make_request: MakeRequest, gate: Path, each: dict[str, Any]
) -> None:
    queue = InProcessQueue(stub_work, workers=8)
    half = replace(make_request(f"after {gate}", count=1), **each)
    jobs = [await queue.submit(half) for _ in range(3)]
    assert [(await queue.get(job.id)).state for job in jobs] == ["STARTED", "STARTED", "PENDING"]
    gate.touch()
    for job in jobs:
        assert (await queue.wait(job.id, 50)).state is State.SUCCESS
    await queue.close()


async def test_drafts_are_asked_for_only_while_somebody_reads_them(
    make_request: MakeRequest,
) -> None:
    listeners: SimpleQueue[GenerationListener] = SimpleQueue()
    done = threading.Event()

    def work(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        listeners.put(listener)
        done.wait(50)
        return []

    queue = InProcessQueue(work, workers=1)
    job = await queue.submit(make_request())
    listener = await asyncio.to_thread(listeners.get)
    counting = queue.events(job.id, drafts=False)
    await anext(counting)
    assert not listener.wants_drafts()
    reading = queue.events(job.id)
    await anext(reading)
    assert listener.wants_drafts()
    await reading.aclose()  # type: ignore[attr-defined]
    assert not listener.wants_drafts()
    done.set()
    await queue.close()


async def test_who_comes_late_gets_the_newest_draft_of_every_joke_that_is_not_told_yet(
    make_request: MakeRequest, gate: Path
) -> None:
    jokes = [GeneratedJoke(f"Number {number}?", "Told.", 7 + number, 1) for number in range(3)]

    def work(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        for number, draft in [(0, "Num"), (1, "Num"), (1, "Number"), (2, "Nu")]:
            listener.on_draft(number, draft, "")
        listener.on_joke(0, jokes[0])
        while not gate.exists():
            time.sleep(0.01)
        return jokes

    queue = InProcessQueue(work, workers=1)
    job = await queue.submit(make_request(count=3))
    await until_told(queue, job)
    events = queue.events(job.id)
    early = [await anext(events) for _ in range(5)]
    gate.touch()
    late = [event async for event in events]
    assert [event.name for event in early] == ["state", "state", "joke", "partial", "partial"]
    assert [e.question for e in early if isinstance(e, PartialEvent)] == ["Number", "Nu"]
    assert {event.id for event in early[2:]} == {early[2].id}
    assert [event.name for event in late] == ["joke", "joke", "state"]
    await queue.close()


async def _last_state(queue: InProcessQueue, job_id: str) -> State:
    return [e.job.state async for e in queue.events(job_id) if isinstance(e, StateEvent)][-1]
