"""What the tests of queues share: stub work, workers that do it, and queues over both."""

from __future__ import annotations

import asyncio
import runpy
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from joker.generation.request import GenerationRequest
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import State
from joker.jobs.queue import JobQueue, Work

if TYPE_CHECKING:
    from tests.conftest import RedisServer

SCRIPT = Path(__file__).with_name("stub.py")
THREADS = 4

MakeQueue = Callable[..., JobQueue]
MakeRequest = Callable[..., GenerationRequest]
StartWorker = Callable[["RedisServer"], "subprocess.Popen[bytes]"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def stub_work() -> Work:
    """Return work that does what the prompt says; see ``stub.py``."""
    work: Work = runpy.run_path(str(SCRIPT))["stub_work"]
    return work


@pytest.fixture(scope="session")
def make_request() -> MakeRequest:
    """Return ``make(prompt="", count=2, seed=7)``, which gives a request."""

    def make(prompt: str = "", count: int = 2, seed: int = 7) -> GenerationRequest:
        return GenerationRequest(prompt, count, seed=seed, safe=False, candidates=1)

    return make


def _start_worker(server: RedisServer, log: Path, lease_seconds: float) -> subprocess.Popen[bytes]:
    arguments = [server.url, str(THREADS), "60", str(lease_seconds)]
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, SCRIPT, *arguments], stdout=file, stderr=file)


def _stop(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    try:
        worker.wait(30)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


@pytest.fixture(scope="session")
def shared_worker(
    redis_server: RedisServer,
    make_request: MakeRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Have one worker process run for all tests of the contract."""

    async def until_ready() -> None:
        queue = CeleryRedisQueue(redis_server.url, deadline_seconds=300)
        job = await queue.submit(make_request())
        assert (await queue.wait(job.id, 300)).state is State.SUCCESS
        await queue.close()

    worker = _start_worker(redis_server, tmp_path_factory.mktemp("worker") / "log", 10)
    try:
        asyncio.run(until_ready())
        yield
    finally:
        _stop(worker)


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Return ``start(redis)``, which starts a worker process with short leases."""
    workers = []

    def start(server: RedisServer) -> subprocess.Popen[bytes]:
        workers.append(_start_worker(server, tmp_path / "worker.log", lease_seconds=2))
        return workers[-1]

    yield start
    for worker in workers:
        _stop(worker)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Return a path that stub work can wait for."""
    return tmp_path / "gate"


@pytest.fixture(params=["in_process", pytest.param("celery_redis", marks=pytest.mark.integration)])
def contract_url(request: pytest.FixtureRequest) -> str | None:
    """Return the Redis of the queue under test; None is the queue in this process."""
    if request.param == "in_process":
        return None
    request.getfixturevalue("shared_worker")
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


@pytest.fixture
async def make_queue(contract_url: str | None, stub_work: Work) -> AsyncIterator[MakeQueue]:
    """Return ``make(**options)``, which gives a queue with stub work."""
    queues: list[JobQueue] = []

    def make(**options: Any) -> JobQueue:
        queues.append(
            CeleryRedisQueue(contract_url, **options)
            if contract_url
            else InProcessQueue(stub_work, workers=THREADS, **options)
        )
        return queues[-1]

    yield make
    for queue in queues:
        await queue.close()
