"""The Celery worker, whose one task runs jobs in threads that share one engine.

``joker worker`` runs it. `joker.jobs.leases` handles deadlines and cancellation too, because
Celery's thread pool cannot terminate tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from celery import Celery, bootsteps, signals
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

from joker.core.errors import ConfigError
from joker.core.logs import configure_logging
from joker.core.tracing import start_tracing, stop_tracing
from joker.jobs.broker import TASK_NAME, make_celery
from joker.jobs.leases import Leases
from joker.jobs.queue import Work
from joker.settings import Settings
from joker.worker.heartbeat import Liveness, heartbeat_file
from joker.worker.metrics import WorkerMetrics

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
