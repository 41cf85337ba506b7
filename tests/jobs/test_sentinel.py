"""A Redis with a replica and a Sentinel, all with passwords: jobs before and after a failover."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException

from benchmarks.servers import free_port
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.job import State
from joker.settings import load_settings
from joker.web.limits import RateLimiter
from tests.jobs.conftest import SCRIPT

if TYPE_CHECKING:
    from tests.conftest import RedisServer
    from tests.jobs.conftest import MakeRequest

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

PASSWORD = "jokes@redis"
SENTINEL_PASSWORD = "jokes&sentinel"


def port_of(server: RedisServer) -> int:
    port = urlsplit(server.url).port
    assert port
    return port


def ask(sentinel: Redis, command: str) -> Any:
    return sentinel.execute_command("SENTINEL", command, "jokes")  # type: ignore[no-untyped-call]


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; an error of Redis counts as no."""
    end = time.monotonic() + 60
    while True:
        try:
            if condition():
                return
        except RedisError:
            pass
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


@pytest.fixture
def servers(start_redis: Callable[..., RedisServer]) -> tuple[RedisServer, RedisServer]:
    """Return a Redis and its replica."""
    options = {"requirepass": PASSWORD, "masterauth": PASSWORD}
    primary, replica = (start_redis(**options) for _ in range(2))
    with Redis.from_url(replica.url) as redis:
        redis.replicaof("127.0.0.1", port_of(primary))
    return primary, replica


@pytest.fixture
def sentinel(servers: tuple[RedisServer, RedisServer], tmp_path: Path) -> Iterator[Redis]:
    """Return a client of a Sentinel that watches the two."""
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"""
        bind 127.0.0.1
        port {port}
        requirepass {SENTINEL_PASSWORD}
        sentinel monitor jokes 127.0.0.1 {port_of(servers[0])} 1
        sentinel auth-pass jokes {PASSWORD}
        sentinel failover-timeout jokes 20000
        """
    )
    with (
        subprocess.Popen(
            ["redis-server", configuration, "--sentinel"], stdout=subprocess.DEVNULL
        ) as process,
        Redis(port=port, password=SENTINEL_PASSWORD, decode_responses=True) as client,
    ):
        yield client
        process.terminate()


async def test_jobs_limits_and_workers_survive_a_failover(
    servers: tuple[RedisServer, RedisServer],
    sentinel: Redis,
    make_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    port = sentinel.connection_pool.connection_kwargs["port"]
    # The first Sentinel is down.
    url = f"sentinel://127.0.0.1:1,127.0.0.1:{port}/0?master=jokes"
    monkeypatch.setenv("JOKER_BROKER_PASSWORD", PASSWORD)
    monkeypatch.setenv("JOKER_BROKER_SENTINEL_PASSWORD", SENTINEL_PASSWORD)
    broker = load_settings(broker=url).broker
    assert broker
    queue = CeleryRedisQueue(broker, deadline_seconds=300)
    limiter = RateLimiter("2/hour", broker)
    await until(lambda: ask(sentinel, "REPLICAS"))
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen([sys.executable, SCRIPT, url, "4", "2"], stderr=log) as worker,
    ):
        try:
            job = await queue.submit(make_request())
            assert (await queue.wait(job.id, 120)).state is State.SUCCESS
            await limiter.take("client", 1)
            under_way = await queue.submit(make_request(f"after {gate}"))
            async for event in queue.events(under_way.id):
                if event.name == "state" and event.job.state is State.STARTED:
                    break
            waiting = asyncio.create_task(queue.wait(under_way.id, 120))

            await until(lambda: ask(sentinel, "FAILOVER"))
            new = ["127.0.0.1", str(port_of(servers[1]))]
            await until(lambda: list(ask(sentinel, "GET-MASTER-ADDR-BY-NAME")) == new)
            servers[0].stop()

            gate.touch()
            assert (await waiting).state is State.SUCCESS
            job = await queue.submit(make_request())
            assert (await queue.wait(job.id, 120)).state is State.SUCCESS
            assert (await queue.stats()).workers == 1
            await limiter.take("client", 1)
            with pytest.raises(HTTPException):
                await limiter.take("client", 1)
        finally:
            worker.terminate()
            await limiter.close()
            await queue.close()
