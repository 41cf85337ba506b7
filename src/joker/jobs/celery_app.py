"""Celery as both sides configure it: those who publish jobs and the workers that take them.

Celery only carries a job's id from one to the other. A message may be lost or come twice:
the record in Redis decides (`joker.jobs.records`), and workers publish lost jobs again.
"""

from __future__ import annotations

from celery import Celery

from joker.jobs.records import SOCKET_SECONDS

TASK = "joker.tell"


def make_celery(url: str, deadline_seconds: float) -> Celery:
    """Return the Celery app for a Redis, without any task."""
    app = Celery("joker", broker=url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_default_queue="joker",
        # A message is acknowledged when its job is final or has another worker.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        # The record is the result.
        task_ignore_result=True,
        broker_transport_options={
            "visibility_timeout": 2 * deadline_seconds,
            "socket_timeout": SOCKET_SECONDS,
            "socket_connect_timeout": SOCKET_SECONDS,
            "health_check_interval": 10,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_publish_retry_policy={"max_retries": 3, "interval_start": 0.1, "interval_max": 1},
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


def publish(app: Celery, job_id: str) -> None:
    """Tell the workers that a job waits."""
    # The task gets the id of its job, for the logs.
    app.send_task(TASK, args=[job_id], task_id=job_id)
