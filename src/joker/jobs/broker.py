"""The broker, for clients and workers: job records in Redis, and Celery messages about them.

`records.lua` changes the records atomically and publishes messages that tell the workers' Celery
the ids of waiting jobs. Messages may be lost or delivered twice, so they are not acknowledged: the
record decides, and the workers' sweep republishes jobs whose message was lost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from ssl import CERT_REQUIRED
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from redis.exceptions import MovedError, RedisError, ResponseError

from joker.core.errors import QueueDownError
from joker.jobs.connection import TIMEOUTS, address_of, celery_broker
from joker.jobs.job import Job
from joker.jobs.queue import LOST_MESSAGE, MAX_ATTEMPTS, deadline_message

if TYPE_CHECKING:
    from celery import Celery

TASK_NAME = "joker.tell"

VERSION = 1
"""The format of records. Added fields keep the format; a change that older workers would get wrong
needs a new one, whose messages they do not fetch. Newer workers also fetch those of older formats.
"""

MESSAGE_LISTS = [f"{{joker}}:messages:{version}" for version in range(1, VERSION + 1)]

MESSAGES = MESSAGE_LISTS[-1]

# Celery's message protocol 2, as a format string for the job's id (twice), the job's tokens, and
# the message's id.
_MESSAGE = json.dumps(
    {
        "body": '[["%s"], {}, {}]',
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": TASK_NAME, "id": "%s", "tokens": "%d"},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": MESSAGES},
            "delivery_tag": "%s",
        },
    }
)

_DEFINITIONS = (
    f"local VERSION, MAX_ATTEMPTS, MESSAGES = {VERSION}, {MAX_ATTEMPTS}, '{MESSAGES}'\n"
    f"local MESSAGE = [=[{_MESSAGE}]=]\n"
)
_RECORDS = (resources.files("joker.jobs") / "records.lua").read_text(encoding="utf-8")

FUNCTION = (
    "joker_" + hashlib.blake2b(f"{_DEFINITIONS}{_RECORDS}".encode(), digest_size=8).hexdigest()
)
"""The Redis function for accepted jobs, which may write even while Redis's memory is full. Its name
contains a digest of its source, so that each version of this package calls its own."""

SUBMIT_FUNCTION = f"{FUNCTION}_submit"
"""The Redis function for new jobs, which Redis rejects while its memory is full."""

LIBRARY = f"""#!lua name={FUNCTION}
{_DEFINITIONS}{_RECORDS}
redis.register_function('{SUBMIT_FUNCTION}', run)
redis.register_function{{function_name = '{FUNCTION}', callback = run, flags = {{'allow-oom'}}}}
"""
"""The source of both functions; a client loads it if Redis does not have them."""

SCRIPT = f"#!lua flags=allow-oom\n{_DEFINITIONS}{_RECORDS}\nreturn run(KEYS, ARGV)"
"""`FUNCTION` as a script, for a full Redis, which does not load functions."""

SLOT_KEY = "{joker}:waiting"
"""The key that every call declares, since all keys are in its slot of a cluster."""

_JOB_ADAPTER: TypeAdapter[Job] = TypeAdapter(Job)

CONNECTION_OPTIONS: dict[str, Any] = {
    **TIMEOUTS,
    "decode_responses": True,
    "health_check_interval": 30,
}


def parse_record(text: str) -> Job:
    """Parse the JSON of a job, ignoring fields that this version does not know."""
    job = _JOB_ADAPTER.validate_json(text, extra="ignore")
    if job.error == "late":
        deadline_seconds = round(job.deadline_at - job.created_at, 3)
        return replace(job, error=deadline_message(deadline_seconds))
    return replace(job, error=LOST_MESSAGE) if job.error == "lost" else job


def is_function_missing(error: ResponseError) -> bool:
    """Return whether a call failed because Redis does not have the function yet."""
    return "Function not found" in str(error)


def server_channel(name: str) -> str:
    """Return the pub/sub channel on which a server receives changes of the jobs it watches."""
    return f"{{joker}}:server:{name}"


@contextmanager
def translate_redis_errors(url: str) -> Iterator[None]:
    """Translate errors of the Redis client into one sentence, without the password.

    Raises:
        QueueDownError: Instead of the client's error.
    """
    try:
        yield
    except MovedError as error:
        raise QueueDownError(
            f"the Redis at {address_of(url)} is a node of a cluster that has none of the queue's "
            f"keys; give the address of the one that has them, {error.host}:{error.port}"
        ) from error
    except (RedisError, OSError) as error:
        raise QueueDownError(
            f"the queue's Redis at {address_of(url)} cannot be used ({error}); "
            "check that it is running and that the address and password are correct"
        ) from error


def make_celery(url: str) -> Celery:
    """Return the workers' Celery application, without tasks."""
    from celery import Celery
    from kombu.entity import Queue

    address, options = celery_broker(url)
    app = Celery("joker", broker=address, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        # The default exchange routes by queue name, so nothing needs to be declared in Redis.
        task_queues=[
            Queue(  # type: ignore[no-untyped-call]
                name, exchange="", routing_key=name, no_declare=True
            )
            for name in MESSAGE_LISTS
        ],
        # Fetch no more messages than there are idle threads.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        # The record is the result.
        task_ignore_result=True,
        broker_transport_options=options
        | TIMEOUTS
        | {
            # The sweep republishes jobs whose message was lost.
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
    """Return TLS options that verify certificates, unless the URL says otherwise."""
    if urlsplit(url).scheme != "rediss":
        return None
    return {"ssl_cert_reqs": CERT_REQUIRED, "ssl_check_hostname": True}
