from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from joker.core.errors import QueueDownError
from joker.jobs.job import Job
from joker.jobs.queue import Load
from joker.web import readiness

MakeClient = Callable[..., AbstractContextManager[TestClient]]


def test_a_live_process_says_so(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}


@pytest.fixture
def submitted(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Return the jobs that the application's queue takes in."""
    app = client.app
    assert isinstance(app, FastAPI)
    jobs: list[Job] = []
    submit = app.state.queue.submit

    async def remember(*arguments: object, **options: object) -> Job:
        jobs.append(await submit(*arguments, **options))
        return jobs[-1]

    monkeypatch.setattr(app.state.queue, "submit", remember)
    return jobs


def test_ready_is_proven_by_a_joke_and_then_taken_from_it(
    client: TestClient, submitted: list[Job]
) -> None:
    for _ in range(3):
        assert client.get("/health/ready").json() == {"status": "ok"}
    assert len(submitted) == 1


def test_a_joke_that_a_client_heard_proves_it(client: TestClient, submitted: list[Job]) -> None:
    client.get("/joke")
    assert client.get("/health/ready").status_code == 200
    assert len(submitted) == 1


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

    async def fail() -> Load:
        raise QueueDownError("Redis cannot be reached; start it")

    monkeypatch.setattr(app.state.queue, "load", fail)
    unready = client.get("/health/ready")
    assert unready.status_code == 503
    assert "out of reach" in unready.json()["detail"]
    assert "Redis" not in unready.text
