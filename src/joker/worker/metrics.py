"""A worker's metrics for Prometheus, on a port of their own if one is set."""

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
from joker.jobs.execution import OUTCOMES, TELLING_BUCKETS
from joker.jobs.queue import TOKENS_AT_ONCE, Work


class WorkerMetrics:
    """One worker process's metrics.

    Args:
        threads: Number of threads.
    """

    def __init__(self, threads: int) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Gauge("joker:worker_threads", "Jobs that may run at the same time.", registry=registry).set(
            threads
        )
        registry.register(ProcessMetrics("worker", os.getpid, child="engine"))
        self._busy = Gauge("joker:worker_busy_threads", "Running jobs.", registry=registry)
        self._tokens = Gauge(
            "joker:worker_tokens", "Tokens that running jobs may occupy.", registry=registry
        )
        Gauge(
            "joker:worker_max_tokens",
            "Tokens of running jobs from which on no further job is started.",
            registry=registry,
        ).set(TOKENS_AT_ONCE)
        self._attempts = Counter(
            "joker:worker_attempts", "Attempts at jobs by outcome.", ["outcome"], registry=registry
        )
        # A rate sees what is counted up from zero, not what appears as one.
        for outcome in OUTCOMES:
            self._attempts.labels(outcome)
        self._seconds = Histogram(
            "joker:worker_attempt_seconds",
            "Duration of attempts.",
            buckets=TELLING_BUCKETS,
            registry=registry,
        )

    def busy(self, work: Work) -> Work:
        """Return the same work, counted while it runs."""

        def counted(
            request: GenerationRequest, listener: GenerationListener
        ) -> list[GeneratedJoke]:
            self._tokens.inc(request.tokens)
            try:
                with self._busy.track_inprogress():
                    return work(request, listener)
            finally:
                self._tokens.dec(request.tokens)

        return counted

    def observe(self, outcome: str, seconds: float) -> None:
        """Record the outcome and the duration of an attempt."""
        self._attempts.labels(outcome).inc()
        self._seconds.observe(seconds)

    @contextmanager
    def exposed(self, host: str, port: int) -> Iterator[int]:
        """Serve the metrics within the context; give the port, a free one for 0.

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
