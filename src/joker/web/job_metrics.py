"""The watch: follows every job that was taken in to its end.

`joker.web.metrics` gets its figures from it.
"""

from __future__ import annotations

import asyncio
import logging
import time

from joker.core.errors import QueueError
from joker.jobs.job import Job, State
from joker.jobs.queue import JobQueue
from joker.web.metrics import Metrics

_log = logging.getLogger(__name__)


class Watch:
    """Follows jobs."""

    def __init__(self, queue: JobQueue, metrics: Metrics) -> None:
        self._queue = queue
        self._metrics = metrics
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, job: Job) -> None:
        """Follow a job, once however often it is asked for."""
        if job.state.final or job.id in self._tasks:
            return
        task = asyncio.create_task(self._follow(job.id))
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.id))

    def count_refusal(self, reason: str) -> None:
        """Count a request for jokes that was not taken in."""
        self._metrics.outcomes.labels(reason).inc()

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, job_id: str) -> None:
        metrics = self._metrics
        began = time.monotonic()
        started = False
        told = False
        reason = "lost"
        try:
            async for event in self._queue.events(job_id):
                elapsed_seconds = time.monotonic() - began
                if event.name == "joke" and not told:
                    told = True
                    metrics.first_joke_seconds.observe(elapsed_seconds)
                if event.name != "state":
                    continue
                state = State(event.data["state"])
                if state is State.STARTED and not started:
                    started = True
                    metrics.queue_seconds.observe(elapsed_seconds)
                if state.final:
                    reason = state.lower()
                    metrics.latency_seconds.observe(elapsed_seconds)
                    self._count(Job.from_dict(event.data))
        except QueueError as error:
            _log.warning("lost sight of a job: %s", error, extra={"fields": {"task_id": job_id}})
        finally:
            metrics.outcomes.labels(reason).inc()

    def _count(self, job: Job) -> None:
        for joke in job.jokes:
            self._metrics.jokes.inc()
            self._metrics.prompt_tokens.inc(joke.prompt_tokens or 0)
            self._metrics.generation_tokens.inc(joke.tokens or 0)
