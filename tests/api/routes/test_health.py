from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from joker.api import readiness
from joker.core.errors import QueueDownError

MakeClient = Callable[..., AbstractContextManager[TestClient]]


def test_a_live_process_says_so(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}


def test_ready_is_proven_by_a_joke_and_then_taken_from_it(client: TestClient) -> None:
    for _ in range(3):
        assert client.get("/health/ready").json() == {"status": "ok"}
    assert "joker:num_requests_waiting 0.0" in client.get("/metrics").text
    app = client.app
    assert isinstance(app, FastAPI)
    assert len(app.state.queue._entries) == 1


def test_not_ready_while_no_worker_tells(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_PROBE_SECONDS", 0.05)
    with make_client() as client:
        client.post("/generate", json={"prompt": "hang"})
        unready = client.get("/health/ready")
        assert unready.status_code == 503
        assert "no worker" in unready.json()["detail"]
        assert client.get("/health/live").status_code == 200


def test_not_ready_while_the_queue_is_down(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = client.app
    assert isinstance(app, FastAPI)

    async def fail() -> int:
        raise QueueDownError("Redis cannot be reached; start it")

    monkeypatch.setattr(app.state.queue, "waiting", fail)
    unready = client.get("/health/ready")
    assert unready.status_code == 503
    assert "Redis" in unready.json()["detail"]
