"""The Celery worker, whose one task runs jobs in threads that share one engine.

``joker worker`` runs it. `joker.jobs.leases` handles deadlines and cancellation too, because
Celery's thread pool cannot terminate tasks.

Liveness probes check the age of the heartbeat, a file that is touched while the worker is healthy,
as in ``deploy/``. It goes stale if the process is stuck or no longer polls for jobs. A hanging
engine does not count, because `joker.engines.process` restarts it; nor does an unreachable Redis,
because a restarted worker would not reach it either.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps, signals
from celery.worker import state
from celery.worker.consumer.tasks import Tasks
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
from joker.core.logs import configure_logging
from joker.core.processes import ProcessMetrics
from joker.core.tracing import start_tracing, stop_tracing
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.jobs.broker import TASK_NAME, make_celery
from joker.jobs.execution import JOB_SECONDS_BUCKETS, OUTCOMES
from joker.jobs.leases import Leases
from joker.jobs.queue import MAX_RUNNING_TOKENS, Work
from joker.settings import Settings

_TOUCH_SECONDS = 5.0
# Celery's consumer polls every second or two.
_STUCK_SECONDS = 30.0

_log = logging.getLogger(__name__)


def run_worker(settings: Settings, open_work: Callable[[], Work]) -> int:
    """Process jobs until a signal stops the worker; return the exit code.

    SIGTERM and Ctrl-C let running jobs finish first; after SIGQUIT, other workers take them over.

    Args:
        settings: ``broker``, ``concurrency``, ``lease_seconds``, ``heartbeat``, ``host`` and
            ``metrics_port`` are used.
        open_work: Returns thread-safe work; called once, after the broker was reached.

    Raises:
        ConfigError: If there is no broker, the heartbeat cannot be written, or the metrics port is
            taken.
        MissingDependencyError: If tracing is enabled and OpenTelemetry is not installed.
        QueueDownError: If the broker cannot be reached.
    """
    if settings.broker is None:
        raise ConfigError(
            "a worker needs the Redis that holds its jobs: set --broker or JOKER_BROKER, "
            "such as redis://localhost:6379/0"
        )
    app = make_celery(settings.broker)
    configure_logging()
    # If this signal has a receiver, Celery does not configure logging.
    signals.setup_logging.connect(_ignore)
    metrics = WorkerMetrics(settings.concurrency)
    leases = Leases(settings.broker, lease_seconds=settings.lease_seconds, observe=metrics.observe)
    with ExitStack() as stack:
        start_tracing("joker-worker")
        stack.callback(stop_tracing)
        port = settings.metrics_port
        if port is not None:
            port = stack.enter_context(metrics.serve(settings.host, port))
        stack.enter_context(leases)
        work = metrics.track(open_work())

        def tell(job_id: str) -> None:
            leases.work_on(job_id, work)

        def reserve(request: Any, **_: Any) -> None:
            leases.reserve(request.id, int(request.request_dict.get("tokens", 0)))

        app.task(tell, name=TASK_NAME)
        # Sent before the next message is fetched, whereas a thread claims the job only later.
        signals.task_received.connect(reserve)
        liveness = Liveness()
        app.steps["consumer"].add(_make_fetch_gate(lambda: leases.has_room, liveness))
        worker = _make_worker(app, settings.concurrency)
        fields = {"threads": settings.concurrency, "metrics_port": port}
        _log.info("ready", extra={"fields": fields})
        if settings.heartbeat:
            stack.enter_context(heartbeat_file(settings.heartbeat, liveness.is_alive))
        worker.start()
    # Celery reports a failure after Ctrl-C even though the running jobs have finished.
    if state.should_stop is not None and state.should_terminate is None:
        return 0
    return int(worker.exitcode or 0)


def _make_worker(app: Celery, threads: int) -> Any:
    """Return a Celery worker without the features that only Celery clusters need."""
    return app.Worker(
        pool="threads",
        concurrency=threads,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )


def _make_fetch_gate(
    has_room: Callable[[], bool], liveness: Liveness
) -> type[bootsteps.StartStopStep]:
    """Return a step of Celery's consumer that stops it from fetching messages without room.

    Args:
        has_room: Returns whether there is room for another job.
        liveness: Beats whenever the consumer polls for messages; paused while it has no connection.
    """

    class FetchGate(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = (Tasks,)

        def start(self, consumer: Any) -> None:
            # Each connection has a new channel, whose QoS Celery asks before it fetches.
            qos = consumer.task_consumer.channel.qos
            below_prefetch_limit = qos.can_consume

            def can_consume() -> bool:
                liveness.beat()
                return has_room() and bool(below_prefetch_limit())

            qos.can_consume = can_consume

        def stop(self, _consumer: Any) -> None:
            liveness.pause()

    return FetchGate


def _ignore(**_: Any) -> None:
    pass


class Liveness:
    """Detects whether a loop is stuck."""

    def __init__(self) -> None:
        self._last_beat: float | None = None

    def beat(self) -> None:
        """Record an iteration of the loop."""
        self._last_beat = time.monotonic()

    def pause(self) -> None:
        """Expect no iterations until the next one."""
        self._last_beat = None

    def is_alive(self) -> bool:
        """Return whether the loop is paused or its last iteration is recent."""
        last_beat = self._last_beat
        return last_beat is None or time.monotonic() - last_beat < _STUCK_SECONDS


@contextmanager
def heartbeat_file(path: Path, is_healthy: Callable[[], bool]) -> Iterator[None]:
    """Touch a file every few seconds within the context, and remove it at the end.

    Args:
        path: The file.
        is_healthy: While it returns false, the file is not touched.

    Raises:
        ConfigError: If the file cannot be written.
    """
    try:
        path.touch()
    except OSError as error:
        raise ConfigError(
            f"the heartbeat {path} cannot be written: {(error.strerror or str(error)).lower()}; "
            "choose another path with JOKER_HEARTBEAT"
        ) from error
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(_TOUCH_SECONDS):
            if is_healthy():
                path.touch()

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


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
