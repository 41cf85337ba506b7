"""A real application over a real queue; only the jokes are written beforehand."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from joker.compose import open_store
from joker.core.joke import GeneratedJoke
from joker.generation.request import GenerationRequest
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import State
from joker.jobs.queue import JobQueue
from joker.settings import Settings
from joker.store import IN_MEMORY
from joker.web.server import Server, bind
from tests.web.stub import tell

if TYPE_CHECKING:
    from tests.conftest import RedisServer

SCRIPT = Path(__file__).with_name("stub.py")

MakeClient = Callable[..., AbstractContextManager[TestClient]]
Serve = Callable[..., AbstractContextManager[str]]


def make_queue(settings: Settings) -> JobQueue:
    times = {
        "deadline_seconds": settings.deadline_seconds,
        "result_ttl_seconds": settings.result_ttl_seconds,
    }
    if settings.broker:
        return CeleryRedisQueue(settings.broker, max_queue_size=settings.max_queue_size, **times)
    return InProcessQueue(tell, workers=1, max_queue_size=settings.max_queue_size, **times)


@pytest.fixture(scope="session")
def broker_with_worker(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Return a Redis for whose jobs a worker process is there."""
    url = redis_server.url.removesuffix("0") + "4"

    async def until_ready() -> None:
        queue = CeleryRedisQueue(url, deadline_seconds=300)
        job = await queue.submit(GenerationRequest(seed=7, safe=False, candidates=1))
        assert (await queue.wait(job.id, 300)).state is State.SUCCESS
        await queue.close()

    with (tmp_path_factory.mktemp("worker") / "log").open("wb") as log:
        worker = subprocess.Popen([sys.executable, SCRIPT, url], stdout=log, stderr=log)
    try:
        asyncio.run(until_ready())
        yield url
    finally:
        worker.terminate()
        worker.wait(60)


@pytest.fixture
def broker() -> str | None:
    """Return the Redis of the queue under test; None is the queue in this process."""
    return None


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"JOKER_{name.upper()}", raising=False)
    # A pool that is filled while a server idles would disturb what tests count.
    monkeypatch.setenv("JOKER_POOL_SIZE", "0")


@pytest.fixture
def picked(monkeypatch: pytest.MonkeyPatch) -> GeneratedJoke:
    """Return the only joke that a pool has, if it is switched on; no others are drafted."""
    joke = GeneratedJoke("Why did the lamp retire?", "It was burnt out.", seed=3, attempts=1)
    monkeypatch.setattr("joker.compose.read_picked_jokes", lambda _: [joke])
    monkeypatch.setattr("joker.web.archive._PAUSE_SECONDS", 60.0)
    return joke


@pytest.fixture
def make_client(broker: str | None) -> MakeClient:
    """Return ``make(**settings)``, a context manager that gives a client of an application."""
    from joker.web import create_app

    @contextmanager
    def make(**given: object) -> Iterator[TestClient]:
        settings = Settings(
            **{  # type: ignore[arg-type]
                "rate_limit": None,
                "broker": broker,
                "database": IN_MEMORY,
                "pool_size": 0,
                **given,
            }
        )
        app = create_app(make_queue(settings), open_store(settings), settings)
        with TestClient(app) as client:
            yield client

    return make


@pytest.fixture
def client(make_client: MakeClient) -> Iterator[TestClient]:
    """Return a client of an application with its default settings, but no rate limit."""
    with make_client() as made:
        yield made


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Return ``serve(**settings)``, a context manager: a server on a free port, its address."""

    @contextmanager
    def start(**given: object) -> Iterator[str]:
        settings = Settings(
            **{  # type: ignore[arg-type]
                "rate_limit": None,
                "port": 0,
                "database": IN_MEMORY,
                "pool_size": 0,
                **given,
            }
        )
        ready = threading.Event()
        addresses: list[str] = []

        def announce(address: str) -> None:
            addresses.append(address)
            ready.set()

        with bind(settings.host, settings.port) as listener:
            server = Server(
                make_queue(settings), open_store(settings), settings, listener, announce
            )
            thread = threading.Thread(
                target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
            )
            thread.start()
            assert ready.wait(60)
            yield addresses[0]
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()

    return start
