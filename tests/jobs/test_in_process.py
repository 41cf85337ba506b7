"""What only the queue in this process promises: it ends with the process, and waits for nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from joker.core.errors import QueueDownError
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import State, StateEvent
from joker.jobs.queue import Work

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
    with pytest.raises(QueueDownError, match="stopping"):
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


async def _last_state(queue: InProcessQueue, job_id: str) -> State:
    return [e.job.state async for e in queue.events(job_id) if isinstance(e, StateEvent)][-1]
