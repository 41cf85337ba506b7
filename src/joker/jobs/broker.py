"""The broker, for both sides of the queue: records of all jobs in Redis, and messages about them.

`records.lua` defines the records and changes them atomically, and with them writes the messages
that tell the workers' Celery the ids of waiting jobs. Messages may be lost or delivered twice, so
they are not acknowledged: the record decides, and the workers' sweep publishes lost jobs again.
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
from joker.jobs.connection import TIMEOUTS, address_of, celery_address
from joker.jobs.job import Job
from joker.jobs.queue import LOST, MOST_ATTEMPTS, late

if TYPE_CHECKING:
    from celery import Celery

TASK = "joker.tell"

VERSION = 1
"""The format of records. Fields may be added to it; a change that older workers would get wrong is
a new format, with messages of its own, which they do not fetch. Newer workers fetch older ones."""

LISTS = [f"{{joker}}:messages:{version}" for version in range(1, VERSION + 1)]

MESSAGES = LISTS[-1]

# Celery's protocol 2, with gaps for the job's id, twice, its tokens, and an id of the message.
_MESSAGE = json.dumps(
    {
        "body": '[["%s"], {}, {}]',
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": TASK, "id": "%s", "tokens": "%d"},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": MESSAGES},
            "delivery_tag": "%s",
        },
    }
)

_DEFINITIONS = (
    f"local VERSION, MOST_ATTEMPTS, MESSAGES = {VERSION}, {MOST_ATTEMPTS}, '{MESSAGES}'\n"
    f"local MESSAGE = [=[{_MESSAGE}]=]\n"
)
_RECORDS = (resources.files("joker.jobs") / "records.lua").read_text(encoding="utf-8")

FUNCTION = (
    "joker_" + hashlib.blake2b(f"{_DEFINITIONS}{_RECORDS}".encode(), digest_size=8).hexdigest()
)
"""Redis's function that changes accepted jobs. Redis keeps it, by a name that other versions of it
do not have."""

SUBMIT = f"{FUNCTION}_submit"
"""The function for new jobs, which Redis refuses while its memory is full."""

LIBRARY = f"""#!lua name={FUNCTION}
{_DEFINITIONS}{_RECORDS}
redis.register_function('{SUBMIT}', run)
redis.register_function{{function_name = '{FUNCTION}', callback = run, flags = {{'allow-oom'}}}}
"""
"""The source of both, to be loaded by whoever finds them missing. Of accepted jobs, leases and
results are written even while Redis's memory is full."""

SCRIPT = f"#!lua flags=allow-oom\n{_DEFINITIONS}{_RECORDS}\nreturn run(KEYS, ARGV)"
"""`FUNCTION` as a script, for a full Redis, which loads no functions. Redis puts it together again
in every call."""

KEY = "{joker}:waiting"
"""Tells a cluster which node holds all records."""

_JOB: TypeAdapter[Job] = TypeAdapter(Job)

CONNECTION: dict[str, Any] = {**TIMEOUTS, "decode_responses": True, "health_check_interval": 30}


def read_record(text: str) -> Job:
    """Return the job of a record; fields that this version does not know are left out."""
    job = _JOB.validate_json(text, extra="ignore")
    if job.error == "late":
        return replace(job, error=late(round(job.deadline_at - job.created_at, 3)))
    return replace(job, error=LOST) if job.error == "lost" else job


def is_missing(error: ResponseError) -> bool:
    """Return whether a call failed because Redis does not have the function yet."""
    return "Function not found" in str(error)


def server_channel(name: str) -> str:
    """Return the channel on which a server receives the changes of the jobs it watches."""
    return f"{{joker}}:server:{name}"


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Report a Redis that cannot be reached in one sentence, without its password.

    Raises:
        QueueDownError: In place of any error of the Redis client.
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
    """Return the workers' Celery, which fetches the messages; it has no task yet."""
    from celery import Celery
    from kombu.entity import Queue

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
