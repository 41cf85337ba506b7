from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from joker.generation.request import GenerationRequest
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.job import Job, State
from tests.command import joker

if TYPE_CHECKING:
    from tests.conftest import RedisServer

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "JOKER_BROKER"}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "named"),
    [
        ([], 2, "--broker"),
        (["--broker", "http://queue"], 2, "JOKER_BROKER"),
        (["--broker", "redis://:secret@127.0.0.1:1/0"], 6, "127.0.0.1:1"),
        (["--broker", "redis://127.0.0.1:1/0", "--concurrency", "0"], 2, "JOKER_CONCURRENCY"),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    arguments: list[str], exit_code: int, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOKER_BROKER", raising=False)
    done = joker("worker", *arguments)
    assert done.returncode == exit_code
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.integration
def test_the_worker_tells_jokes_with_the_bundled_model_and_ends_at_ctrl_c(
    redis_server: RedisServer,
) -> None:
    url = redis_server.url.removesuffix("0") + "2"

    async def ask() -> Job:
        queue = CeleryRedisQueue(url, deadline_seconds=200)
        request = GenerationRequest("Why do", 2, seed=7, safe=False, candidates=8)
        job = await queue.submit(request)
        done = await queue.wait(job.id, 200)
        await queue.close()
        return done

    worker = subprocess.Popen(
        [sys.executable, "-m", "joker", "worker", "--broker", url, "--concurrency", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    try:
        done = asyncio.run(ask())
        assert done.state is State.SUCCESS, done.error
        assert all(joke.question.startswith("Why do") for joke in done.jokes)
        worker.send_signal(signal.SIGINT)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
