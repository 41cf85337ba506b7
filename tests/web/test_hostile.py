"""What strangers may send to a server that runs: it answers with a problem and lives on."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import httpx2
import pytest

from joker.web import middleware

pytestmark = pytest.mark.integration

Serve = Callable[..., AbstractContextManager[str]]
Send = Callable[..., str]

POST = "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
STREAMS = 200


@pytest.fixture(scope="module")
def address(serve: Serve) -> Iterator[str]:
    """Return a running server's address."""
    with serve() as address:
        yield address


@pytest.fixture
def send(address: str) -> Iterator[Send]:
    """Return ``send(text)``, which sends bytes as they are and gives the answer's beginning."""
    url = httpx2.URL(address)

    def send(text: str) -> str:
        with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
            connection.sendall(text.encode("latin-1"))
            return connection.recv(65536).decode("latin-1")

    yield send
    assert httpx2.get(f"{address}/health/live").status_code == 200


def body(text: str) -> str:
    return f"{POST}Content-Length: {len(text)}\r\n\r\n{text}"


@pytest.mark.parametrize(
    "text",
    [
        "GET /joke HTTP/1.1\r\nHost: x\r\nX-A: " + "a" * 200_000 + "\r\n\r\n",
        "GET /generate/" + "a" * 200_000 + " HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /info HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\r\n b\r\n c\x00\r\n\r\n",
        f"{POST}Content-Length: -5\r\n\r\n",
        f"{POST}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{{}}",
        f"{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "get / no\r\n\r\n",
    ],
)
def test_broken_http_is_a_bad_request(send: Send, text: str) -> None:
    assert send(text).startswith(("HTTP/1.1 400 ", "HTTP/1.1 413 "))


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ('{"prompt": "\xff\xfe"}', 400),
        ("[" * 8000, 400),
        ('{"seed": ' + "9" * 5000 + "}", 400),
        ('{"temperature": NaN}', 422),
        ('{"top_p": Infinity}', 422),
        ('{"temperature": 1e999}', 422),
        ('{"n": 1, "n": 99}', 422),
        ('{"__proto__": 1}', 422),
        ('{"prompt": "\\ud800"}', 422),
        ('{"prompt": "\\u0000\\u001b[31m\\u202e\\r\\nX: y"}', 202),
    ],
)
def test_a_strange_body_gets_a_plain_answer(send: Send, text: str, status: int) -> None:
    assert send(body(text)).startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/app.py",
        "/static/..%2f..%2fapp.py",
        "/static/docs/..%5c..%5c__init__.py",
        "/static/%00",
        "/static/",
        "//etc/passwd",
        "/generate/%0d%0aX:%20y",
        "/generate/%ff%00",
        "/generate/" + "a" * 50_000,
        "/jokes/" + "A" * 50_000,
    ],
)
def test_nothing_is_found_where_nothing_is(send: Send, path: str) -> None:
    answer = send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith("HTTP/1.1 404 ")
    assert "\nX: y" not in answer.partition("\r\n\r\n")[0]


def test_a_body_that_dawdles_is_given_up(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "_BODY_SECONDS", 0.2)
    answer = send(f'{POST}Content-Length: 100\r\n\r\n{{"prompt": ')
    assert answer.startswith("HTTP/1.1 408 ")
    assert "connection: close" in answer.lower()


def test_two_hundred_streams_at_once_hear_the_end(address: str) -> None:
    limits = httpx2.Limits(max_connections=STREAMS + 10)
    with (
        httpx2.Client(base_url=address, timeout=60, limits=limits) as client,
        ThreadPoolExecutor(STREAMS) as threads,
    ):
        job = client.post("/generate", json={"prompt": "hang"}).headers["Location"]
        streams = [threads.submit(client.get, f"{job}/events") for _ in range(STREAMS)]
        assert client.get("/health/live").status_code == 200
        client.delete(job)
        assert all("REVOKED" in stream.result().text for stream in streams)
