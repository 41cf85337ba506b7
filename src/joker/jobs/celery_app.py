"""The workers' Celery, which fetches the messages that `joker.jobs.broker` describes."""

from __future__ import annotations

from ssl import CERT_REQUIRED
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu.entity import Queue

from joker.jobs.broker import LISTS
from joker.jobs.connection import TIMEOUTS, celery_address


def make_celery(url: str) -> Celery:
    """Return the Celery app for a Redis, without any task."""
    address, options = celery_address(url)
    app = Celery("joker", broker=address, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        # Nothing is declared in Redis: the default exchange routes by the queue's name.
        task_queues=[
            Queue(  # type: ignore[no-untyped-call]
                name, exchange="", routing_key=name, no_declare=True
            )
            for name in LISTS
        ],
        # A thread fetches a message only once its last job has ended.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        # The record is the result.
        task_ignore_result=True,
        broker_transport_options=options
        | TIMEOUTS
        | {
            # The record decides, and a sweep publishes jobs without a message again.
            "ack_emulation": False,
            "priority_steps": [0],
            "health_check_interval": 10,
        },
        broker_use_ssl=_tls_options(url),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


def _tls_options(url: str) -> dict[str, Any] | None:
    """Return the options that make Celery verify certificates, unless the URL says otherwise."""
    if urlsplit(url).scheme != "rediss":
        return None
    return {"ssl_cert_reqs": CERT_REQUIRED, "ssl_check_hostname": True}
