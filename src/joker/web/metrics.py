"""The metrics that Prometheus scrapes, named like vLLM's.

If ``PROMETHEUS_MULTIPROC_DIR`` names a folder, all processes of a server write their metrics there,
and each of them returns the sum. The folder must be empty when the server starts.
`joker.worker` has those of workers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from joker.core.errors import ConfigError, QueueError, QueueStoppedError, StoreDownError
from joker.core.processes import ProcessMetrics
from joker.jobs.execution import JOB_SECONDS_BUCKETS
from joker.jobs.job import Job, JokeEvent, State, StateEvent
from joker.jobs.queue import JobQueue, QueueStats
from joker.settings import Settings
from joker.store import Store

_log = logging.getLogger(__name__)

_REASONS = (
    *("success", "failure", "revoked", "lost"),
    *("rate_limited", "queue_full", "memory_full"),
)
_MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"
_HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0)


class Metrics:
    """The metrics of one process, or of all processes of a server.

    Args:
        settings: Queue size and deadline, exported for alerts.

    Raises:
        ConfigError: If the folder of the metrics is invalid.

    Attributes:
        jokes: Jokes told.
        prompt_tokens: Tokens of their prompts.
        generation_tokens: Tokens generated for them.
        outcomes: Outcomes of requests for jokes, by reason.
        latency_seconds: Time from submission to the final state.
        queue_seconds: Time from submission to the start of work.
        first_joke_seconds: Time from submission to the first joke.
        http_requests: Responses by method, route and status.
        http_seconds: Durations of responses, streams to their end, by method and route.
    """

    def __init__(self, settings: Settings) -> None:
        self._registry = CollectorRegistry()
        merged = _multiprocess_registry()
        if merged is None:
            ProcessCollector(registry=self._registry)
            PlatformCollector(registry=self._registry)
        self._exported = merged or self._registry
        self._exported.register(ProcessMetrics("web", _process_id))
        self._queue_up = self._gauge("joker:queue_up", "1 if the queue responds.")
        self._waiting = self._gauge("joker:num_requests_waiting", "Jobs waiting for a worker.")
        self._running = self._gauge("joker:num_requests_running", "Jobs that a worker runs.")
        self._workers = self._gauge("joker:num_workers", "Workers that are running.")
        self._memory = self._gauge("joker:redis_memory_bytes", "Memory in use by Redis.")
        self._memory_limit = self._gauge(
            "joker:redis_memory_limit_bytes", "Memory that Redis may use."
        )
        self._store_up = self._gauge("joker:store_up", "1 if the store responds.")
        self._store_failures = self._counter("joker:store_failures", "Failed calls to the store.")
        self._store_failures_seen = 0
        self._pool_untold = self._gauge(
            "joker:pool_untold_jokes", "Jokes in the pool that nobody has heard."
        )
        self._reported = self._gauge("joker:reported_jokes", "Jokes that are hidden by reports.")
        limit = self._gauge("joker:max_queue_size", "Maximum number of waiting jobs.")
        limit.set(settings.max_queue_size)
        deadline = self._gauge("joker:deadline_seconds", "Time limit of a job in seconds.")
        deadline.set(settings.deadline_seconds)
        self.jokes = self._counter("joker:jokes", "Jokes told.")
        self.prompt_tokens = self._counter(
            "joker:prompt_tokens", "Tokens of the prompts of jokes told."
        )
        self.generation_tokens = self._counter(
            "joker:generation_tokens", "Tokens generated for jokes told."
        )
        self.outcomes = self._counter(
            "joker:request_outcome", "Requests for jokes by outcome.", "reason"
        )
        # Prometheus's rate() misses the first increment of a series that does not start at zero.
        for reason in _REASONS:
            self.outcomes.labels(reason)
        self.latency_seconds = self._histogram(
            "joker:e2e_request_latency_seconds", "Time from submission to the final state."
        )
        self.queue_seconds = self._histogram(
            "joker:request_queue_time_seconds", "Time from submission to the start of work."
        )
        self.first_joke_seconds = self._histogram(
            "joker:time_to_first_joke_seconds", "Time from submission to the first joke."
        )
        self.http_requests = self._counter(
            "joker:http_requests", "HTTP responses.", "method", "route", "status"
        )
        self.http_seconds = self._histogram(
            "joker:http_request_duration_seconds",
            "Durations of HTTP responses.",
            "method",
            "route",
            buckets=_HTTP_BUCKETS,
        )

    def render(self, stats: QueueStats | None) -> bytes:
        """Return all metrics in Prometheus's text format; those of unknown ``stats`` are NaN."""
        self._queue_up.set(stats is not None)
        self._waiting.set(stats.waiting if stats else math.nan)
        self._running.set(stats.running if stats else math.nan)
        self._workers.set(stats.workers if stats else math.nan)
        memory_bytes = stats.memory_bytes if stats else None
        limit_bytes = stats.memory_limit_bytes if stats else None
        self._memory.set(math.nan if memory_bytes is None else memory_bytes)
        self._memory_limit.set(math.nan if limit_bytes is None else limit_bytes)
        return generate_latest(self._exported)

    def observe_store(self, store: Store) -> None:
        """Update the metrics of the store; may block."""
        self._pool_untold.set(store.pool.size(untold=True))
        try:
            self._reported.set(math.nan if store.down else store.count_reported())
        except StoreDownError:
            self._reported.set(math.nan)
        self._store_up.set(not store.down)
        failures = store.failures
        self._store_failures.inc(failures - self._store_failures_seen)
        self._store_failures_seen = failures

    def _gauge(self, name: str, documentation: str) -> Gauge:
        # All processes set the same value, so the most recent one is right.
        try:
            return Gauge(
                name, documentation, registry=self._registry, multiprocess_mode="mostrecent"
            )
        except OSError as error:
            raise ConfigError(
                f"{_MULTIPROC_DIR} cannot be used: {error}; name an existing folder"
            ) from error

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self._registry)

    def _histogram(
        self,
        name: str,
        documentation: str,
        *labels: str,
        buckets: tuple[float, ...] = JOB_SECONDS_BUCKETS,
    ) -> Histogram:
        return Histogram(name, documentation, labels, buckets=buckets, registry=self._registry)


class JobFollower:
    """Follows accepted jobs to their end and records their outcomes and times."""

    def __init__(self, queue: JobQueue, metrics: Metrics) -> None:
        self._queue = queue
        self._metrics = metrics
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, job: Job) -> None:
        """Follow a job, unless it is final or already followed."""
        if job.state.final or job.id in self._tasks:
            return
        task = asyncio.create_task(self._follow(job.id))
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.id))

    def count_refusal(self, reason: str) -> None:
        """Count a rejected request for jokes."""
        self._metrics.outcomes.labels(reason).inc()

    async def close(self) -> None:
        """Stop following jobs."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, job_id: str) -> None:
        metrics = self._metrics
        submitted_at = time.monotonic()
        started = False
        told = False
        reason = "lost"
        try:
            async for event in self._queue.events(job_id, drafts=False):
                elapsed_seconds = time.monotonic() - submitted_at
                if isinstance(event, JokeEvent) and not told:
                    told = True
                    metrics.first_joke_seconds.observe(elapsed_seconds)
                if not isinstance(event, StateEvent):
                    continue
                job = event.job
                if job.state is State.STARTED and not started:
                    started = True
                    metrics.queue_seconds.observe(elapsed_seconds)
                if job.state.final:
                    reason = job.state.lower()
                    metrics.latency_seconds.observe(elapsed_seconds)
                    metrics.jokes.inc(len(job.jokes))
                    metrics.prompt_tokens.inc(sum(joke.prompt_tokens for joke in job.jokes))
                    metrics.generation_tokens.inc(sum(joke.tokens for joke in job.jokes))
        except QueueStoppedError:
            return  # the job continues
        except QueueError as error:
            _log.warning("cannot follow a job: %s", error, extra={"fields": {"task_id": job_id}})
        metrics.outcomes.labels(reason).inc()


def _process_id() -> int:
    """Return the process whose CPU time is exported: with several, their parent.

    The parent's CPU time includes children that have ended.
    """
    return os.getppid() if _MULTIPROC_DIR in os.environ else os.getpid()


def _multiprocess_registry() -> CollectorRegistry | None:
    """Return the metrics of all processes of the server, or None without a folder for them."""
    registry = CollectorRegistry()
    try:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    except ValueError:
        return None
    return registry
