"""A queue and leases over a real Redis, without Celery."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from joker.jobs.broker import MESSAGES
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.leases import Leases
from tests.jobs.leases.support import (
    LEASE_SECONDS,
    Fetch,
    MakeLeases,
)

if TYPE_CHECKING:
    from tests.conftest import RedisServer


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    """Return a database that no worker looks at."""
    url = redis_server.url.removesuffix("0") + "1"
    with Redis.from_url(url) as redis:
        redis.flushdb()
    return url


@pytest.fixture
async def queue(url: str) -> AsyncIterator[CeleryRedisQueue]:
    queue = CeleryRedisQueue(url, deadline_seconds=50)
    yield queue
    await queue.close()


@pytest.fixture
def make_leases(url: str) -> Iterator[MakeLeases]:
    """Return ``make(lease_seconds=0.5)``: leases, not yet renewed."""
    made = []

    def make(lease_seconds: float = LEASE_SECONDS) -> Leases:
        made.append(Leases(url, lease_seconds=lease_seconds))
        return made[-1]

    yield make
    for leases in made:
        leases.close()


@pytest.fixture
def fetch(url: str) -> Iterator[Fetch]:
    """Return ``fetch()``, which takes the messages that are there and returns their jobs."""
    with Redis.from_url(url) as redis:

        def fetch() -> list[str]:
            return [json.loads(text)["headers"]["id"] for text in redis.rpop(MESSAGES, 100) or ()]

        yield fetch
