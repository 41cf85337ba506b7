"""What an idle server drafts in advance, and who gets it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from joker.core.joke import GeneratedJoke
from joker.engines.protocol import AbandonedError, GenerationListener
from joker.generation.moderation import Flag, Moderator
from joker.generation.request import GenerationRequest
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import State
from joker.settings import load_settings
from joker.store import IN_MEMORY, Store
from joker.web import archive
from joker.web.archive import Archive, PoolFiller

MakeClient = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joker.compose.read_picked_jokes", lambda _: [])
    monkeypatch.setattr(archive, "_PAUSE_SECONDS", 0.01)


def untold(client: TestClient) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(
        next(one.split()[1] for one in lines if one.startswith("joker:pool_untold_jokes "))
    )


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def take(client: TestClient, key: str) -> Any:
    return client.get("/jokes/random", headers={"Authorization": f"Bearer {key}"})


def test_an_idle_server_keeps_unheard_jokes_ready(make_client: MakeClient) -> None:
    with make_client(pool_size=3, api_keys="one,two") as client:
        wait_until(lambda: untold(client) == 3)
        first = take(client, "one").json()
        assert first["question"].startswith("Why did the kettle number ")
        assert first["votes"] == {"up": 0, "down": 0, "report": 0}
        assert client.get(first["link"], headers={"Authorization": "Bearer two"}).json() == first
        wait_until(lambda: untold(client) == 3)


def test_nobody_gets_a_joke_twice_and_everybody_gets_each(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_client(pool_size=3, api_keys="one,two") as client:
        wait_until(lambda: untold(client) == 3)
        monkeypatch.setattr(archive, "_PAUSE_SECONDS", 60.0)
        had: dict[str, set[str]] = {"one": set(), "two": set()}
        for key in ("one", "two", "one"):  # again, for a draft that was under way
            while (answer := take(client, key)).status_code == 200:
                assert answer.json()["id"] not in had[key]
                had[key].add(answer.json()["id"])
            assert answer.status_code == 404
            assert "GET /joke" in answer.json()["detail"]
        assert had["one"] == had["two"]
        assert len(had["one"]) >= 3


def test_a_server_without_a_pool_drafts_nothing(make_client: MakeClient) -> None:
    with make_client() as client:
        time.sleep(0.2)
        assert untold(client) == 0
        assert client.get("/jokes/random").status_code == 404
        assert "joker:num_requests_running 0.0" in client.get("/metrics").text


def test_a_server_whose_pool_is_switched_off_takes_nothing_from_it(
    make_client: MakeClient, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'jokes.sqlite'}"
    left = GeneratedJoke("Why did the lamp retire?", "It was burnt out.", seed=3, attempts=1)
    store = Store(database)
    store.pool.add(left, model="bundled", picked=True)
    store.close()
    with make_client(database=database) as client:
        assert client.get("/jokes/random").status_code == 404
        for path in ("/", "/joke"):
            assert left.question not in client.get(path).text


def test_nothing_is_drafted_while_a_job_is_under_way(make_client: MakeClient) -> None:
    with make_client() as client:
        task = client.post("/generate", json={"prompt": "hang"}).json()
        filler = archive.PoolFiller(
            client.app.state.queue,  # type: ignore[attr-defined]
            client.app.state.store,  # type: ignore[attr-defined]
            client.app.state.archive,  # type: ignore[attr-defined]
            client.app.state.settings,  # type: ignore[attr-defined]
        )
        assert client.portal is not None
        wait_until(lambda: "joker:num_requests_running 1.0" in client.get("/metrics").text)
        assert not client.portal.call(filler._is_idle)
        client.delete(f"/generate/{task['task_id']}")
        wait_until(lambda: client.portal is not None and client.portal.call(filler._is_idle))


def test_random_jokes_count_against_the_rate_limit(make_client: MakeClient) -> None:
    with make_client(rate_limit="1/minute") as client:
        assert client.get("/jokes/random").status_code == 404
        assert client.get("/jokes/random").status_code == 429


def test_picked_jokes_come_first_and_need_no_model(
    make_client: MakeClient, picked: GeneratedJoke
) -> None:
    with make_client(pool_size=1, api_keys="one") as client:
        headers = {"Authorization": "Bearer one", "Accept": "application/json"}
        first = client.get("/joke?n=2", headers=headers).json()
        assert [joke["picked"] for joke in first["result"]] == [True, False]
        assert first["result"][0] | asdict(replace(picked, model="bundled")) == first["result"][0]
        assert first["task_id"] is not None  # the second one was drafted on demand
        assert client.get(first["result"][0]["link"], headers=headers).json()["picked"]


def test_what_the_pool_has_needs_no_job(make_client: MakeClient) -> None:
    with make_client(pool_size=2, api_keys="one") as client:
        wait_until(lambda: untold(client) == 2)
        headers = {"Authorization": "Bearer one", "Accept": "application/json"}
        ready = client.get("/joke", headers=headers).json()
        assert (ready["state"], ready["task_id"], ready["seed"]) == ("SUCCESS", None, None)
        drafted = client.get("/joke?seed=1", headers=headers).json()
        assert drafted["task_id"]
        assert drafted["seed"] == 1


def test_a_draft_gives_way_to_a_request() -> None:
    abandoned = threading.Event()

    def work(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        until = time.monotonic() + 60
        while request.candidates == 64 and not listener.should_stop():
            assert time.monotonic() < until
            time.sleep(0.01)
        if request.candidates == 64:
            abandoned.set()
            raise AbandonedError
        assert abandoned.wait(60)
        return [GeneratedJoke("Why?", "Because.", seed=1, attempts=1)]

    async def fill() -> None:
        settings = load_settings(pool_size=1)
        queue, store = InProcessQueue(work, workers=2), Store(IN_MEMORY)
        archive = Archive(store, Moderator.default(), settings)
        filling = asyncio.create_task(PoolFiller(queue, store, archive, settings).run())
        while not (await queue.stats()).running:
            await asyncio.sleep(0.01)
        job = await queue.submit(GenerationRequest())
        assert (await queue.wait(job.id, 60)).state is State.SUCCESS
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        await queue.close()
        store.close()

    asyncio.run(fill())


def test_jokes_are_moderated_once_however_often_their_job_is_read() -> None:
    class Counting(Moderator):
        checks = 0

        def check(self, text: str) -> tuple[Flag, ...]:
            self.checks += 1
            return super().check(text)

    def work(request: GenerationRequest, _: GenerationListener) -> list[GeneratedJoke]:
        return [
            GeneratedJoke("Why did the mayor laugh?", f"For {number} reasons.", number, 1)
            for number in range(request.count)
        ]

    async def read(moderator: Moderator) -> None:
        queue, store = InProcessQueue(work, workers=1), Store(IN_MEMORY)
        archive = Archive(store, moderator, load_settings())
        job = await queue.submit(GenerationRequest(count=8))
        job = await queue.wait(job.id, 60)
        for _ in range(5):
            task = await archive.to_task(job)
            assert [joke.flags for joke in task.result] == 8 * [("political",)]
        await queue.close()
        store.close()

    moderator = Counting("[political topic]\nmayor")
    asyncio.run(read(moderator))
    assert moderator.checks == 8
