from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from redis import Redis
from redis.crc import key_slot
from starlette.exceptions import HTTPException

from joker.core.errors import ConfigError
from joker.jobs.broker import SLOT_KEY
from joker.web.limits import RateLimiter

if TYPE_CHECKING:
    from tests.conftest import RedisServer

MakeClient = Callable[..., AbstractContextManager[TestClient]]


def test_jokes_over_the_rate_are_refused_until_later(make_client: MakeClient) -> None:
    with make_client(rate_limit="3/hour") as client:
        told = client.get("/joke", params={"n": 2})
        assert told.headers["RateLimit-Policy"] == '"jokes";q=3;w=3600'
        assert told.headers["RateLimit"].startswith('"jokes";r=1;t=')
        refused = client.get("/joke", params={"n": 2})
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 3600
        assert "jokes are limited to 3 in 3600 seconds" in refused.json()["detail"]
        assert client.get("/joke").status_code == 200
        assert 'outcome_total{reason="rate_limited"} 1.0' in client.get("/metrics").text


def test_more_jokes_than_the_rate_ever_allows_are_a_mistake(make_client: MakeClient) -> None:
    with make_client(rate_limit="3/hour") as client:
        refused = client.get("/joke", params={"n": 4})
        assert refused.status_code == 422
        assert "at most 3 jokes in one request" in refused.json()["detail"]
        assert "Retry-After" not in refused.headers


def test_every_entrance_counts(make_client: MakeClient) -> None:
    with make_client(rate_limit="1/hour") as client:
        assert client.get("/joke").status_code == 200
        answers = [
            client.post("/generate", json={}),
            client.post("/v1/completions", json={}),
            client.get("/joke"),
        ]
        assert [answer.status_code for answer in answers] == [429] * 3
        assert client.get("/health/ready").status_code == 200


def test_clients_are_counted_apart(make_client: MakeClient) -> None:
    with make_client(rate_limit="1/hour", api_keys="one,two") as client:
        for key in ("one", "two"):
            headers = {"Authorization": f"Bearer {key}"}
            statuses = [client.get("/joke", headers=headers).status_code for _ in range(2)]
            assert statuses == [200, 429]


def test_a_rate_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigError, match="'often'; write it as 60/minute"):
        RateLimiter("often")


def test_a_server_names_the_setting_of_a_rate_that_cannot_be_read(make_client: MakeClient) -> None:
    with (
        pytest.raises(ConfigError, match=r"JOKER_RATE_LIMIT: .*'often'"),
        make_client(rate_limit="often"),
    ):
        pass


@pytest.mark.integration
def test_processes_count_together_in_redis(redis_server: RedisServer) -> None:
    async def take() -> None:
        one, other = (RateLimiter("3/hour", redis_server.url) for _ in range(2))
        await one.take("somebody", 2)
        with pytest.raises(HTTPException, match="limited to 3 in"):
            await other.take("somebody", 2)
        await other.take("somebody else", 2)
        await one.close()
        await other.close()

    asyncio.run(take())


@pytest.mark.integration
def test_rates_are_on_the_queues_node_of_a_cluster(redis_server: RedisServer) -> None:
    """Counters in another slot would be refused by that node, and nobody's rate limited."""

    async def take() -> None:
        limiter = RateLimiter("3/hour", redis_server.url)
        await limiter.take("somebody {else}", 1)
        await limiter.close()

    with Redis.from_url(redis_server.url) as client:
        before = set(client.keys())
        asyncio.run(take())
        made = set(client.keys()) - before
    assert made
    assert {key_slot(key) for key in made} == {key_slot(SLOT_KEY.encode())}


def test_without_redis_nothing_is_counted_and_nobody_refused() -> None:
    async def take() -> dict[str, str]:
        limiter = RateLimiter("1/hour", "redis://127.0.0.1:1/0")
        headers = [await limiter.take("somebody", 1) for _ in range(2)]
        await limiter.close()
        return headers[1]

    assert asyncio.run(take()) == {}
