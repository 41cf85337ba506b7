"""A worker's figures for Prometheus, on a port of its own where one is set."""

from __future__ import annotations

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
from joker.jobs.execution import OUTCOMES, TELLING_BUCKETS
from joker.jobs.job import JokeRequest, JokeResult
from joker.jobs.queue import Progress, Work


class WorkerMetrics:
    """One worker process's figures.

    Args:
        threads: Jobs at once.
    """

    def __init__(self, threads: int) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Gauge("joker:worker_threads", "Jobs at once.", registry=registry).set(threads)
        self._busy = Gauge("joker:worker_busy_threads", "Jobs in hand.", registry=registry)
        self._attempts = Counter(
            "joker:worker_attempts", "Attempts at jobs by outcome.", ["outcome"], registry=registry
        )
        # A rate sees what is counted up from zero, not what appears as one.
        for outcome in OUTCOMES:
            self._attempts.labels(outcome)
        self._seconds = Histogram(
            "joker:worker_attempt_seconds",
            "How long attempts took.",
            buckets=TELLING_BUCKETS,
            registry=registry,
        )

    def busy(self, work: Work) -> Work:
        """Return the same work, counted while it goes on."""

        def counted(request: JokeRequest, progress: Progress) -> list[JokeResult]:
            with self._busy.track_inprogress():
                return work(request, progress)

        return counted

    def observe(self, outcome: str, seconds: float) -> None:
        """Take in what an attempt came to, and how long it took."""
        self._attempts.labels(outcome).inc()
        self._seconds.observe(seconds)

    @contextmanager
    def exposed(self, host: str, port: int) -> Iterator[int]:
        """Answer Prometheus within the context; give the port, the one that was free for 0.

        Raises:
            ConfigError: If the port is taken, or the address is none of this machine's.
        """
        try:
            server, thread = start_http_server(port, host, self._registry)
        except OSError as error:
            raise ConfigError(
                f"cannot show figures on {host} port {port}: "
                f"{(error.strerror or str(error)).lower()}; choose another with JOKER_METRICS_PORT"
            ) from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
