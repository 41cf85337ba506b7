from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from joker.web.limits import identify_client

MakeClient = Callable[..., AbstractContextManager[TestClient]]


@pytest.mark.parametrize("path", ["/", "/joke", "/docs", "/static/page.js", "/nowhere", "/metrics"])
def test_every_answer_has_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert ("unsafe-inline" in policy) == (path == "/docs")


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    refused = client.post("/generate", json={"prompt": "x" * 20_000})
    assert refused.status_code == 413
    assert "16384 bytes" in refused.json()["detail"]


def test_a_body_of_unknown_length_is_refused_once_over_the_limit(client: TestClient) -> None:
    def stream() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(20):
            yield b"x" * 1000

    refused = client.post(
        "/generate", content=stream(), headers={"Content-Type": "application/json"}
    )
    assert refused.status_code == 413


def test_with_keys_only_their_holders_get_jokes(make_client: MakeClient) -> None:
    with make_client(api_keys="sesame") as client:
        for path in ("/", "/joke", "/generate/x", "/v1/models"):
            refused = client.get(path)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"].startswith("Basic")
        assert client.get("/joke", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/joke", headers={"Authorization": "Basic ???"}).status_code == 401
        assert client.get("/joke", headers={"Authorization": "Bearer sesame"}).status_code == 200
        assert client.get("/", auth=("anyone", "sesame")).status_code == 200
        assert client.get("/health/live").status_code == 200


def test_other_sites_may_call_where_they_are_named(make_client: MakeClient) -> None:
    origin = {"Origin": "https://jokes.example"}
    with make_client() as client:
        assert "Access-Control-Allow-Origin" not in client.get("/info", headers=origin).headers
    with make_client(cors_origins="https://jokes.example") as client:
        allowed = client.get("/info", headers=origin).headers["Access-Control-Allow-Origin"]
        assert allowed == "https://jokes.example"
        other = client.get("/info", headers={"Origin": "https://other.example"})
        assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("testclient", "testclient"),
    ],
)
def test_clients_are_told_apart_by_network(host: str, client: str) -> None:
    assert identify_client(Request({"type": "http", "client": (host, 1)})) == client
