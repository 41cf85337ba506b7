"""A real application over a real queue; only the jokes are written beforehand."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from fastapi.testclient import TestClient

from joker.api.server import Server, bind
from joker.core.errors import GenerationError
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import JokeRequest, JokeResult
from joker.jobs.queue import Progress
from joker.settings import Settings

HOSTILE = '<img src="x" onerror="document.title=\'broken\'">'

MakeClient = Callable[..., AbstractContextManager[TestClient]]
Serve = Callable[..., AbstractContextManager[str]]


def tell(request: JokeRequest, progress: Progress) -> list[JokeResult]:
    """Tell jokes without a model; what the prompt says decides how it goes."""
    if request.prompt == "fail":
        raise GenerationError("the joke could not be told in 5 tries; change the prompt")
    if request.prompt == "hang":
        while not progress.stopped():
            time.sleep(0.01)
        return []
    jokes = []
    for index in range(request.count):
        seed = request.seed + index
        question = f"{request.prompt or 'Why did the kettle'} number {seed}?"
        answer = HOSTILE if request.prompt == "hostile" else f"It was told with seed {seed}."
        joke = JokeResult(question, answer, seed, 1, original=index == 0, similarity=0.25)
        progress.partial(index, question, answer[:6])
        progress.joke(index, joke)
        jokes.append(joke)
    return jokes


def make_queue(settings: Settings) -> InProcessQueue:
    return InProcessQueue(
        tell,
        workers=1,
        capacity=settings.capacity,
        deadline_seconds=settings.deadline_seconds,
        keep_seconds=settings.keep_seconds,
    )


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"JOKER_{name.upper()}", raising=False)


@pytest.fixture
def make_client() -> MakeClient:
    """Return ``make(**settings)``, a context manager that gives a client of an application."""
    from joker.api import create_app

    @contextmanager
    def make(**given: object) -> Iterator[TestClient]:
        settings = Settings(**{"rate_limit": None, **given})  # type: ignore[arg-type]
        with TestClient(create_app(make_queue(settings), settings)) as client:
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
        settings = Settings(**{"rate_limit": None, "port": 0, **given})  # type: ignore[arg-type]
        ready = threading.Event()
        addresses: list[str] = []

        def announce(address: str) -> None:
            addresses.append(address)
            ready.set()

        with bind(settings.host, settings.port) as listener:
            server = Server(make_queue(settings), settings, listener, announce)
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
