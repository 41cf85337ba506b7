"""What holds for every queue whatever happens in whatever order."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from joker.core.errors import KeyConflictError
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import Event, Job, State, StateEvent
from joker.jobs.queue import JobQueue, Work

if TYPE_CHECKING:
    from tests.jobs.conftest import MakeRequest

LONG = 50.0
T = TypeVar("T")


class History(RuleBasedStateMachine):
    """Clients of one queue, whose workers do what prompts say."""

    jobs = Bundle("jobs")

    def __init__(self, make_queue: Callable[[], JobQueue], make_request: MakeRequest) -> None:
        super().__init__()
        self._make_request = make_request
        self._loop = asyncio.new_event_loop()
        self._salt = secrets.token_hex(8)
        self._keys: dict[str, Job] = {}
        self._finals: dict[str, Job] = {}
        self._ids: set[str] = set()
        self._queue: JobQueue = self._run(self._open(make_queue))

    @rule(
        target=jobs,
        prompt=st.sampled_from(["", "", "refuse", "fault"]),
        seed=st.integers(0, 1),
        key=st.sampled_from([None, "a", "b"]),
    )
    def submit(self, prompt: str, seed: int, key: str | None) -> str | None:
        """Submit a job, perhaps with a key that was used before."""
        request = self._make_request(prompt, seed=seed)
        known = self._keys.get(key) if key else None
        salted = f"{self._salt} {key}" if key else None
        try:
            job = self._run(self._queue.submit(request, key=salted))
        except KeyConflictError:
            assert known
            assert known.request != request
            return known.id
        assert job.request == request
        assert known is None or (known.id, known.request) == (job.id, request)
        assert known or job.id not in self._ids
        if key:
            self._keys[key] = job
        self._ids.add(job.id)
        return job.id

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        """Revoke a job, unless it is final."""
        self._take(self._run(self._queue.cancel(job_id)), final=True)

    @rule(job_id=jobs)
    def look(self, job_id: str) -> None:
        """Read a job."""
        self._take(self._run(self._queue.get(job_id)), final=False)

    @rule(job_id=jobs)
    def wait(self, job_id: str) -> None:
        """Wait for a job's end."""
        self._take(self._run(self._queue.wait(job_id, LONG)), final=True)

    @rule(job_id=jobs)
    def hear(self, job_id: str) -> None:
        """Hear a job's story, which ends once."""
        events = self._run(self._hear(job_id))
        states = [event.job for event in events if isinstance(event, StateEvent)]
        assert [job.state.final for job in states] == [False] * (len(states) - 1) + [True]
        assert states[0].state is State.PENDING
        self._take(states[-1], final=True)

    def teardown(self) -> None:
        """See every job to its end."""
        for job_id in self._ids:
            self._take(self._run(self._queue.wait(job_id, LONG)), final=True)
        self._run(self._queue.close())
        self._loop.close()

    def _take(self, job: Job, final: bool) -> None:
        """Compare a job with what was known of it."""
        assert job.state.final or not final
        assert self._finals.get(job.id, job) == job
        if job.state.final:
            self._finals[job.id] = job
        if job.state is State.SUCCESS:
            assert [joke.seed for joke in job.jokes] == [job.request.seed, job.request.seed + 1]

    async def _open(self, make_queue: Callable[[], JobQueue]) -> JobQueue:
        return make_queue()

    async def _hear(self, job_id: str) -> list[Event]:
        async with aclosing(self._queue.events(job_id)) as events:  # type: ignore[type-var]
            return [event async for event in events]

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(call)


def test_no_history_loses_a_job_or_ends_one_twice(
    contract_url: str | None, stub_work: Work, make_request: MakeRequest
) -> None:
    make_queue: Callable[[], JobQueue] = (
        partial(CeleryRedisQueue, contract_url)
        if contract_url
        else partial(InProcessQueue, stub_work, workers=4)
    )

    class Subject(History):
        def __init__(self) -> None:
            super().__init__(make_queue, make_request)

    run_state_machine_as_test(
        Subject,
        settings=settings(
            max_examples=15,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
