"""A worker's Prometheus metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from joker.core.errors import ConfigError
from joker.core.joke import GeneratedJoke
from joker.core.processes import ProcessMetrics
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.jobs.execution import JOB_SECONDS_BUCKETS, OUTCOMES
from joker.jobs.queue import MAX_RUNNING_TOKENS, Work


class WorkerMetrics:
    """The metrics of one worker process.

    Args:
        threads: Number of threads that run jobs.
    """

    def __init__(self, threads: int) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Gauge("joker:worker_threads", "Maximum number of running jobs.", registry=registry).set(
            threads
        )
        registry.register(ProcessMetrics("worker", os.getpid, child="engine"))
        self._busy = Gauge("joker:worker_busy_threads", "Running jobs.", registry=registry)
        self._tokens = Gauge(
            "joker:worker_tokens", "Tokens that running jobs may need.", registry=registry
        )
        Gauge(
            "joker:worker_max_tokens",
            "Value of joker:worker_tokens at which no further job is started.",
            registry=registry,
        ).set(MAX_RUNNING_TOKENS)
        self._attempts = Counter(
            "joker:worker_attempts", "Attempts at jobs by outcome.", ["outcome"], registry=registry
        )
        # rate() misses the first increment of a series that does not start at zero.
        for outcome in OUTCOMES:
            self._attempts.labels(outcome)
        self._seconds = Histogram(
            "joker:worker_attempt_seconds",
            "Duration of attempts.",
            buckets=JOB_SECONDS_BUCKETS,
            registry=registry,
        )

    def track(self, work: Work) -> Work:
        """Wrap work so that it is counted while it runs."""

        def tracked(
            request: GenerationRequest, listener: GenerationListener
        ) -> list[GeneratedJoke]:
            self._tokens.inc(request.tokens)
            try:
                with self._busy.track_inprogress():
                    return work(request, listener)
            finally:
                self._tokens.dec(request.tokens)

        return tracked

    def observe(self, outcome: str, seconds: float) -> None:
        """Record the outcome and the duration of an attempt."""
        self._attempts.labels(outcome).inc()
        self._seconds.observe(seconds)

    @contextmanager
    def serve(self, host: str, port: int) -> Iterator[int]:
        """Serve the metrics within the context; yield the port, which is a free one for 0.

        Raises:
            ConfigError: If the port is taken, or the address is not one of this machine.
        """
        try:
            server, thread = start_http_server(port, host, self._registry)
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics on {host} port {port}: "
                f"{(error.strerror or str(error)).lower()}; choose another with JOKER_METRICS_PORT"
            ) from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
