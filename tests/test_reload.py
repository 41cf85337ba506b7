"""`joker serve` and `joker worker` change their model while they tell jokes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from joker.core.model_folder import ModelFolder
from joker.generation.request import GenerationRequest
from joker.generation.teller import RELOAD_SIGNAL
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.job import Job, State

if TYPE_CHECKING:
    from tests.conftest import RedisServer

pytestmark = pytest.mark.integration

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("JOKER_")}
ENVIRONMENT |= {"JOKER_POOL_SIZE": "0"}
JSON = {"Accept": "application/json"}


@pytest.fixture
def link(served_folder: ModelFolder, tmp_path: Path) -> Path:
    """Return a link to a model "first", beside which there is a "second"."""
    for name in ("first", "second"):
        shutil.copytree(served_folder.path, tmp_path / name)
    link = tmp_path / "current"
    link.symlink_to("first")
    return link


def swap(link: Path, process: subprocess.Popen[str]) -> None:
    """Do what the how-to says."""
    newer = link.with_name("newer")
    newer.symlink_to("second")
    newer.replace(link)
    # As a shell does for ``kill %1``: to all processes of the job.
    os.killpg(process.pid, RELOAD_SIGNAL)


@contextmanager
def running(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "joker", *command],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def drain(process: subprocess.Popen[str]) -> None:
    """Read the log, so that the process never waits for its reader."""
    assert process.stderr is not None
    threading.Thread(target=process.stderr.read, daemon=True).start()


def test_a_server_answers_every_request_while_it_changes_its_model(link: Path) -> None:
    with running("serve", "--port", "0", "--model", link) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[1]
        drain(process)
        with httpx2.Client(base_url=address, timeout=60) as client:

            def told_by(**parameters: object) -> str:
                query = {"safe": "false", **parameters}
                answer = client.get("/joke", params=query, headers=JSON)  # type: ignore[arg-type]
                assert answer.status_code == 200, answer.text
                return str(answer.json()["result"][0]["model"])

            assert told_by() == "first"
            with ThreadPoolExecutor() as pool:
                begun = pool.submit(told_by, n=10, candidates=64)
                wait_until(lambda: "joker:num_requests_running 1.0" in client.get("/metrics").text)
                swap(link, process)
                wait_until(lambda: told_by() == "second")
                assert begun.result() == "first"
            assert client.get("/info").json()["model"]["name"] == "second"


def test_a_worker_tells_every_job_while_it_changes_its_model(
    link: Path, start_redis: Callable[[], RedisServer]
) -> None:
    url = start_redis().url  # of its own: no other worker may tell these jobs

    async def tell(queue: CeleryRedisQueue) -> Job:
        request = GenerationRequest(safe=False, candidates=1)
        return await queue.wait((await queue.submit(request)).id, 60)

    async def scenario(worker: subprocess.Popen[str]) -> None:
        queue = CeleryRedisQueue(url)
        job = await tell(queue)
        assert (job.state, job.jokes[0].model) == (State.SUCCESS, "first")
        swap(link, worker)
        until = time.monotonic() + 60
        while job.jokes[0].model != "second":
            assert time.monotonic() < until
            job = await tell(queue)
            assert job.state is State.SUCCESS
        await queue.close()

    with running("worker", "--broker", url, "--model", link) as worker:
        drain(worker)
        asyncio.run(scenario(worker))


def test_a_server_without_a_model_outlives_the_signal(redis_server: RedisServer) -> None:
    with running("serve", "--port", "0", "--broker", redis_server.url) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[1]
        drain(process)
        os.killpg(process.pid, RELOAD_SIGNAL)
        assert httpx2.get(f"{address}/health/live", timeout=60).status_code == 200
        assert process.poll() is None


def wait_until(met: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not met():
        assert time.monotonic() < until
        time.sleep(0.02)
