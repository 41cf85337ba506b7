"""Routes keep their promises over both queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import openai
import pytest
from redis import Redis

Serve = Callable[..., AbstractContextManager[str]]


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


@pytest.fixture
def openai_client(serve: Serve, broker: str | None) -> Iterator[openai.OpenAI]:
    """Return the OpenAI client of a running server that asks for a key."""
    with (
        serve(api_keys="sesame", broker=broker) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="sesame", max_retries=0) as client,
    ):
        yield client
