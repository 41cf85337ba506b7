"""The records of all jobs in Redis: how both sides of the queue reach them.

`records.lua` says what is kept and changes it atomically. `joker.jobs.celery_redis` calls
it for those who ask, `joker.jobs.leases` for the workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from joker.core.errors import QueueDownError
from joker.jobs.job import Job

SCRIPT = (resources.files("joker.jobs") / "records.lua").read_text(encoding="utf-8")

# A connection that says nothing for so long is dead.
SOCKET_SECONDS = 5.0
CONNECTION: dict[str, Any] = {
    "decode_responses": True,
    "socket_connect_timeout": SOCKET_SECONDS,
    "socket_timeout": SOCKET_SECONDS,
    "health_check_interval": 30,
}


def events_key(job_id: str) -> str:
    """Return the name of a job's stream of events."""
    return f"joker:events:{job_id}"


def to_json(value: Any) -> str:
    """Return a value as compact JSON, the same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def read_job(record: str) -> Job:
    """Return the job that the script gave as JSON."""
    return Job.from_dict(json.loads(record))


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
