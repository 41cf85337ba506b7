"""The broker as both sides of the queue use it: records of all jobs in Redis, messages by Celery.

`records.lua` says what is kept and changes it atomically. Celery only carries a job's id from
those who ask (`joker.jobs.celery_redis`) to the workers (`joker.jobs.leases`, `joker.worker`). A
message may be lost or come twice: the record decides, and workers publish lost jobs again. So
messages are not acknowledged in Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from ssl import CERT_REQUIRED
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu.entity import Queue
from redis.exceptions import RedisError

from joker.core.errors import QueueDownError
from joker.jobs.queue import MOST_ATTEMPTS

TASK = "joker.tell"

VERSION = 1
"""The format of records. Fields may be added to it; what older workers would get wrong is a new
format, with messages of its own, which they do not fetch."""

MESSAGES = f"{{joker}}:messages:{VERSION}"

_DEFINITIONS = (
    f"local VERSION, MOST_ATTEMPTS, MESSAGES = {VERSION}, {MOST_ATTEMPTS}, '{MESSAGES}'\n"
)
_RECORDS = (resources.files("joker.jobs") / "records.lua").read_text(encoding="utf-8")

SUBMIT = f"#!lua\n{_DEFINITIONS}{_RECORDS}"
"""The script for new jobs, which Redis refuses while its memory is full."""

SCRIPT = f"#!lua flags=allow-oom\n{_DEFINITIONS}{_RECORDS}"
"""The same script for jobs that were taken in: leases and results are written all the same."""

KEYS = ("{joker}:waiting",)
"""What tells a cluster which node holds all records."""

# A connection that says nothing for so long is dead.
SOCKET_SECONDS = 5.0
CONNECTION: dict[str, Any] = {
    "decode_responses": True,
    "socket_connect_timeout": SOCKET_SECONDS,
    "socket_timeout": SOCKET_SECONDS,
    "health_check_interval": 30,
}


def server_channel(name: str) -> str:
    """Return the channel on which a server hears of the jobs that it watches."""
    return f"{{joker}}:server:{name}"


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Say in one sentence, and without its password, that a Redis cannot be reached.

    Raises:
        QueueDownError: In place of any error of the Redis client.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        parts = urlsplit(url)
        address = f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
        raise QueueDownError(
            f"the queue's Redis at {address} cannot be used ({error}); "
            "see that it runs and that the address and password are right"
        ) from error


def make_celery(url: str) -> Celery:
    """Return the Celery app for a Redis, without any task."""
    app = Celery("joker", broker=url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        # Nothing is declared in Redis: the default exchange routes by the queue's name.
        task_queues=[
            Queue(  # type: ignore[no-untyped-call]
                MESSAGES, exchange="", routing_key=MESSAGES, no_declare=True
            )
        ],
        task_default_queue=MESSAGES,
        # A thread fetches a message only once its last job has ended.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        # The record is the result.
        task_ignore_result=True,
        broker_transport_options={
            # The record decides, and a sweep publishes jobs without a message again.
            "ack_emulation": False,
            "priority_steps": [0],
            "socket_timeout": SOCKET_SECONDS,
            "socket_connect_timeout": SOCKET_SECONDS,
            "health_check_interval": 10,
        },
        broker_use_ssl=_tls_options(url),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_publish_retry_policy={"max_retries": 3, "interval_start": 0.1, "interval_max": 1},
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


def _tls_options(url: str) -> dict[str, Any] | None:
    """Return what makes Celery verify certificates, unless the URL says otherwise."""
    if urlsplit(url).scheme != "rediss":
        return None
    return {"ssl_cert_reqs": CERT_REQUIRED, "ssl_check_hostname": True}


def publish(app: Celery, job_id: str) -> None:
    """Tell the workers that a job waits."""
    # The task gets the id of its job, for the logs.
    app.send_task(TASK, args=[job_id], task_id=job_id, exchange="", routing_key=MESSAGES)
