"""Routes keep their promises over both queues."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis


@pytest.fixture(params=["in_process", pytest.param("celery_redis", marks=pytest.mark.integration)])
def broker(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Return the Redis of the queue under test; None is the queue in this process."""
    if request.param == "in_process":
        yield None
        return
    url: str = request.getfixturevalue("broker_with_worker")
    yield url
    # The worker hears that its jobs are nobody's any more; the next test finds no trace of them.
    with Redis.from_url(url, decode_responses=True) as redis:
        for key in set(redis.scan_iter("{joker}:*")) - {"{joker}:workers"}:
            redis.delete(key)
