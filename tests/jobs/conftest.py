"""What the tests of queues share: stub work, workers that do it, and queues over both."""

from __future__ import annotations

import asyncio
import runpy
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.crc import key_slot

from benchmarks.servers import free_port
from joker.generation.request import GenerationRequest
from joker.jobs.broker import SLOT_KEY
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import State
from joker.jobs.queue import JobQueue, Work

if TYPE_CHECKING:
    from tests.conftest import RedisServer

SCRIPT = Path(__file__).with_name("stub.py")
THREADS = 4
SLOTS = 16_384
# The programs, and whether they run as a cluster.
SERVERS = {
    "redis": ("redis-server", False),
    "redis_cluster": ("redis-server", True),
    "valkey_cluster": ("valkey-server", True),
}
REAL = pytest.mark.integration

MakeQueue = Callable[..., JobQueue]
MakeRequest = Callable[..., GenerationRequest]
StartWorker = Callable[["RedisServer"], "subprocess.Popen[bytes]"]
StartCluster = Callable[[str], "list[RedisServer]"]


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
    arguments = [server.url, str(THREADS), str(lease_seconds)]
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
def start_cluster(start_redis: Callable[..., RedisServer]) -> StartCluster:
    """Return ``start(program)``: two nodes of a cluster.

    The first has nothing but the slot of the queue's keys, so it refuses all other keys.
    """

    def start(program: str) -> list[RedisServer]:
        ports = [str(free_port()) for _ in range(2)]
        options = {"cluster-enabled": "yes"}
        servers = [start_redis(program, **options, **{"cluster-port": port}) for port in ports]
        clients = [Redis.from_url(server.url, decode_responses=True) for server in servers]
        slot = key_slot(SLOT_KEY.encode())
        _ask(clients[0], "ADDSLOTS", slot)
        _ask(clients[1], "ADDSLOTSRANGE", 0, slot - 1, slot + 1, SLOTS - 1)
        _ask(clients[1], "MEET", "127.0.0.1", urlsplit(servers[0].url).port, ports[0])
        until = time.monotonic() + 60
        while not all("cluster_state:ok" in str(_ask(client, "INFO")) for client in clients):
            assert time.monotonic() < until, "the cluster does not form"
            time.sleep(0.05)
        for client in clients:
            client.close()
        return servers

    return start


def _ask(client: Redis, *command: object) -> object:
    return client.execute_command("CLUSTER", *command)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def serve(
    start_redis: Callable[..., RedisServer],
    start_cluster: StartCluster,
    make_request: MakeRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str, bool], str]]:
    """Return ``serve(program, clustered)``: the URL of a Redis that all tests share, and a worker.

    Of a cluster, it is that of the node that has the queue.
    """
    workers = []

    async def until_ready(url: str) -> None:
        queue = CeleryRedisQueue(url, deadline_seconds=300)
        job = await queue.submit(make_request())
        assert (await queue.wait(job.id, 300)).state is State.SUCCESS
        await queue.close()

    @cache
    def start(program: str, clustered: bool) -> str:
        server = start_cluster(program)[0] if clustered else start_redis(program)
        workers.append(_start_worker(server, tmp_path_factory.mktemp("worker") / "log", 10))
        asyncio.run(until_ready(server.url))
        return server.url

    yield start
    for worker in workers:
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


@pytest.fixture(params=["in_process", *(pytest.param(name, marks=REAL) for name in SERVERS)])
def contract_url(request: pytest.FixtureRequest) -> str | None:
    """Return the Redis of the queue under test; None is the queue in this process."""
    if request.param == "in_process":
        return None
    url: str = request.getfixturevalue("serve")(*SERVERS[request.param])
    return url


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
