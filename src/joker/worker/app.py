"""The Celery worker and its one task: many jobs at once in threads that share one engine.

``joker worker`` runs it. `joker.jobs.leases` handles claims, leases and records, and also deadlines
and cancellation, since a thread pool can end no task.
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
from joker.jobs.broker import TASK, make_celery
from joker.jobs.leases import Leases
from joker.jobs.queue import Work
from joker.settings import Settings
from joker.worker.heartbeat import Pulse, beating
from joker.worker.metrics import WorkerMetrics

_log = logging.getLogger(__name__)


def run_worker(settings: Settings, open_work: Callable[[], Work]) -> int:
    """Work on jobs until a signal says stop; return the exit code.

    SIGTERM and Ctrl-C let running jobs finish first; SIGQUIT does not, and other workers take
    them over.

    Args:
        settings: ``broker``, ``concurrency``, ``lease_seconds``, ``heartbeat``, ``host`` and
            ``metrics_port`` are used.
        open_work: Called once, after the broker was reached; returns thread-safe work.

    Raises:
        ConfigError: If there is no broker, the heartbeat cannot be written, or the port for
            metrics is taken.
        MissingDependencyError: If traces are wanted and OpenTelemetry is not installed.
        QueueDownError: If it cannot be reached.
    """
    if settings.broker is None:
        raise ConfigError(
            "a worker needs the Redis that holds its jobs: set --broker or JOKER_BROKER, "
            "such as redis://localhost:6379/0"
        )
    app = make_celery(settings.broker)
    configure_logging()
    # While this signal has a receiver, Celery does not configure logging.
    signals.setup_logging.connect(_keep_logs)
    metrics = WorkerMetrics(settings.concurrency)
    leases = Leases(settings.broker, lease_seconds=settings.lease_seconds, observe=metrics.observe)
    with ExitStack() as parts:
        start_tracing("joker-worker")
        parts.callback(stop_tracing)
        port = settings.metrics_port
        if port is not None:
            port = parts.enter_context(metrics.exposed(settings.host, port))
        parts.enter_context(leases)
        work = metrics.busy(open_work())

        def tell(job_id: str) -> None:
            leases.work_on(job_id, work)

        def expect(request: Any, **_: Any) -> None:
            leases.expect(request.id, int(request.request_dict.get("tokens", 0)))

        app.task(tell, name=TASK)
        # It is sent before the next message is fetched; a thread claims the job later.
        signals.task_received.connect(expect)
        pulse = Pulse()
        app.steps["consumer"].add(_fetches_with_room(lambda: leases.has_room, pulse))
        worker = _make_worker(app, settings.concurrency)
        fields = {"threads": settings.concurrency, "metrics_port": port}
        _log.info("ready", extra={"fields": fields})
        if settings.heartbeat:
            parts.enter_context(beating(settings.heartbeat, pulse.is_there))
        worker.start()
    # Celery calls Ctrl-C a failure although the running jobs have finished.
    if state.should_stop is not None and state.should_terminate is None:
        return 0
    return int(worker.exitcode or 0)


def _make_worker(app: Celery, threads: int) -> Any:
    """Return Celery's worker, which does nothing but run tasks."""
    return app.Worker(
        pool="threads",
        concurrency=threads,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )


def _fetches_with_room(has_room: Callable[[], bool], pulse: Pulse) -> type[bootsteps.StartStopStep]:
    """Return a part of Celery's consumer that fetches messages only while there is room.

    Args:
        has_room: Whether there is.
        pulse: Beats whenever the consumer looks for messages, unless it has no connection.
    """

    class FetchesWithRoom(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = (Tasks,)

        def start(self, consumer: Any) -> None:
            # Each connection has a new channel, and Celery asks it before it fetches.
            limits = consumer.task_consumer.channel.qos
            below_concurrency = limits.can_consume

            def can_consume() -> bool:
                pulse.beat()
                return has_room() and bool(below_concurrency())

            limits.can_consume = can_consume

        def stop(self, _consumer: Any) -> None:
            pulse.pause()

    return FetchesWithRoom


def _keep_logs(**_: Any) -> None:
    pass
