from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress

import httpx2
import pytest

from joker.web import server

pytestmark = pytest.mark.integration

Serve = Callable[..., AbstractContextManager[str]]
GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def connect(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], socket.socket]]:
    """Return ``connect()``, which gives a connection to a server with little patience."""
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.5)
    monkeypatch.setattr(server, "_UNREAD_SECONDS", 0.5)
    with serve() as address:
        url = httpx2.URL(address)
        yield lambda: socket.create_connection((url.host, url.port or 80), timeout=60)
        assert httpx2.get(f"{address}/health/live").status_code == 200


@pytest.mark.parametrize("begun", [b"", GET], ids=["nothing", "headers"])
def test_who_does_not_finish_headers_is_cut_off(
    connect: Callable[[], socket.socket], begun: bytes
) -> None:
    with connect() as client:
        client.sendall(begun)
        assert client.recv(1000) == b""


def test_the_second_request_has_no_more_time_than_the_first(
    connect: Callable[[], socket.socket],
) -> None:
    with connect() as client:
        client.sendall(GET + b"\r\n")
        answer = b""
        while not answer.endswith(b'{"status":"ok"}'):
            answer += client.recv(1000)
        client.sendall(GET)
        assert client.recv(1000) == b""


def test_headers_that_never_end_are_refused(connect: Callable[[], socket.socket]) -> None:
    with connect() as client:
        client.sendall(GET + b"X-A: " + b"a" * 100_000)
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_an_answer_may_take_longer_than_headers(connect: Callable[[], socket.socket]) -> None:
    body = b'{"prompt": "hang"}'
    head = (
        b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Prefer: wait=1\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with connect() as client:
        client.sendall(head + body)
        assert client.recv(1000).startswith(b"HTTP/1.1 202 ")


def test_who_does_not_read_is_cut_off(connect: Callable[[], socket.socket]) -> None:
    with connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        path = b"GET /static/docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
        client.sendall(path * 20)
        time.sleep(3)
        received = 0
        with suppress(ConnectionResetError):
            while piece := client.recv(1 << 20):
                received += len(piece)
        assert received < 10_000_000, "all of it would be more"
