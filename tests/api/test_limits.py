from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from fastapi.testclient import TestClient

from joker.api.limits import RateLimiter
from joker.core.errors import ConfigError

MakeClient = Callable[..., AbstractContextManager[TestClient]]


def test_jokes_over_the_rate_are_refused_until_later(make_client: MakeClient) -> None:
    with make_client(rate_limit="3/hour") as client:
        told = client.get("/joke", params={"n": 2})
        assert told.headers["RateLimit-Policy"] == '"jokes";q=3;w=3600'
        assert told.headers["RateLimit"].startswith('"jokes";r=1;t=')
        refused = client.get("/joke", params={"n": 2})
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 3600
        assert "3 jokes in 3600 seconds" in refused.json()["detail"]
        assert client.get("/joke").status_code == 200
        assert 'outcome_total{reason="rate_limited"} 1.0' in client.get("/metrics").text


def test_every_entrance_counts(make_client: MakeClient) -> None:
    with make_client(rate_limit="1/hour") as client:
        link = client.get("/joke", headers={"Accept": "application/json"}).json()["result"][0]
        answers = [
            client.post("/generate", json={}),
            client.post("/v1/completions", json={}),
            client.get("/joke"),
            client.get(link["link"]),
        ]
        assert [answer.status_code for answer in answers] == [429] * 4
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
