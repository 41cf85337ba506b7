"""The figures that Prometheus scrapes, named in vLLM's manner; none has a label per task.

Where the environment names a folder as ``PROMETHEUS_MULTIPROC_DIR``, processes that share one
address put their figures together there, and each of them answers for all; it must be empty
when the first of them starts. `joker.worker.metrics` has the workers' own.
"""

from __future__ import annotations

import math

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

from joker.core.errors import ConfigError
from joker.jobs.execution import TELLING_BUCKETS
from joker.jobs.queue import Load
from joker.settings import Settings

_REASONS = ("success", "failure", "revoked", "lost", "rate_limited", "queue_full")
_HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0)


class Metrics:
    """The figures of one process, or of all that share a folder.

    Args:
        settings: Capacity and deadline, which alerts compare with.

    Raises:
        ConfigError: If the folder that processes share cannot be used.

    Attributes:
        jokes: Jokes told.
        prompt_tokens: Tokens of their prompts.
        generation_tokens: Tokens of theirs behind the prompts.
        outcomes: What became of requests for jokes, by reason.
        latency_seconds: From being taken in to the final state.
        queue_seconds: From being taken in to a worker's beginning.
        first_joke_seconds: From being taken in to the first joke.
        http_requests: Answers by method, route and status.
        http_seconds: How long answers took, streams to their end, by method and route.
    """

    def __init__(self, settings: Settings) -> None:
        self._registry = CollectorRegistry()
        self._merged = _find_merged()
        if self._merged is None:
            ProcessCollector(registry=self._registry)
            PlatformCollector(registry=self._registry)
        self._queue_up = self._gauge("joker:queue_up", "Whether the queue answers.")
        self._waiting = self._gauge("joker:num_requests_waiting", "Jobs waiting for a worker.")
        self._running = self._gauge("joker:num_requests_running", "Jobs that a worker has in hand.")
        self._workers = self._gauge("joker:num_workers", "Workers that are there.")
        self._gauge("joker:max_queue_size", "Most jobs that wait.").set(settings.max_queue_size)
        self._gauge("joker:deadline_seconds", "When a job fails that is not told.").set(
            settings.deadline_seconds
        )
        self.jokes = self._counter("joker:jokes", "Jokes told.")
        self.prompt_tokens = self._counter("joker:prompt_tokens", "Tokens of their prompts.")
        self.generation_tokens = self._counter(
            "joker:generation_tokens", "Tokens of jokes told, behind their prompts."
        )
        self.outcomes = self._counter(
            "joker:request_outcome", "Requests for jokes by outcome.", "reason"
        )
        # A rate sees what is counted up from zero, not what appears as one.
        for reason in _REASONS:
            self.outcomes.labels(reason)
        self.latency_seconds = self._histogram(
            "joker:e2e_request_latency_seconds",
            "From being taken in to the final state.",
            TELLING_BUCKETS,
        )
        self.queue_seconds = self._histogram(
            "joker:request_queue_time_seconds",
            "From being taken in to a worker's beginning.",
            TELLING_BUCKETS,
        )
        self.first_joke_seconds = self._histogram(
            "joker:time_to_first_joke_seconds",
            "From being taken in to the first joke.",
            TELLING_BUCKETS,
        )
        self.http_requests = self._counter(
            "joker:http_requests", "HTTP answers.", "method", "route", "status"
        )
        self.http_seconds = self._histogram(
            "joker:http_request_duration_seconds",
            "How long HTTP answers took.",
            _HTTP_BUCKETS,
            "method",
            "route",
        )

    def render(self, load: Load | None) -> bytes:
        """Return all figures as Prometheus reads them.

        Args:
            load: The queue's; what it cannot say is NaN.
        """
        self._queue_up.set(load is not None)
        self._waiting.set(load.waiting if load else math.nan)
        self._running.set(load.running if load else math.nan)
        self._workers.set(load.workers if load else math.nan)
        return generate_latest(self._merged or self._registry)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        # What all processes know alike is taken from the one that said it last.
        try:
            return Gauge(
                name, documentation, registry=self._registry, multiprocess_mode="mostrecent"
            )
        except OSError as error:
            raise ConfigError(
                f"PROMETHEUS_MULTIPROC_DIR cannot be used: {error}; name a folder that is there"
            ) from error

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self._registry)

    def _histogram(
        self, name: str, documentation: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(name, documentation, labels, buckets=buckets, registry=self._registry)


def _find_merged() -> CollectorRegistry | None:
    """Return the figures of all processes that share a folder; None where none is named."""
    registry = CollectorRegistry()
    try:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    except ValueError:
        return None
    return registry
