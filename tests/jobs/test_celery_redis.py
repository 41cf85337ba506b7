"""What only the queue over Redis promises: workers and Redis itself come and go, no job does.

Real workers, real Redis, real losses.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from joker.core.errors import MemoryFullError, QueueDownError
from joker.engines.tasks import SEQUENCE_TOKENS
from joker.jobs.broker import LIBRARY, MESSAGES
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.job import State, StateEvent
from joker.jobs.queue import MAX_RUNNING_TOKENS
from tests.jobs.conftest import SCRIPT
from tests.jobs.events import all_events, last_job, until_told

if TYPE_CHECKING:
    from tests.conftest import RedisServer
    from tests.jobs.conftest import MakeRequest, StartWorker

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

LONG = 150.0
SLOW_CLAIMS = """
import runpy, sys, time
from joker.jobs.leases import _Lease

claim = _Lease.claim

def claim_late(*arguments):
    time.sleep(0.5)
    return claim(*arguments)

_Lease.claim = claim_late
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
OUTAGE_SECONDS = 10.0


@pytest.fixture
def redis(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """Return a Redis of this test's own."""
    return start_redis()


@pytest.fixture
async def queue(redis: RedisServer) -> AsyncIterator[CeleryRedisQueue]:
    queue = CeleryRedisQueue(redis.url, deadline_seconds=LONG)
    yield queue
    await queue.close()


def fill(client: Redis, size: int) -> None:
    """Put so many bytes at a time into a Redis until it takes no more."""
    with suppress(OutOfMemoryError):
        while True:
            client.rpush("filler", b"x" * size)


async def test_a_job_of_a_worker_killed_in_mid_joke_is_told_by_another_once(
    redis: RedisServer,
    queue: CeleryRedisQueue,
    start_worker: StartWorker,
    make_request: MakeRequest,
    gate: Path,
) -> None:
    worker = start_worker(redis)
    job = await queue.submit(make_request(f"half {gate}"))
    await until_told(queue, job)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    gate.touch()
    start_worker(redis)
    done = await queue.wait(job.id, LONG)
    assert (done.state, done.attempts, len(done.jokes)) == (State.SUCCESS, 2, 2)
    told = await all_events(queue, job)
    states = [event.job.state for event in told if isinstance(event, StateEvent)]
    assert states == ["PENDING", "STARTED", "PENDING", "STARTED", "SUCCESS"]


async def test_jobs_outlive_ten_seconds_without_redis(
    redis: RedisServer,
    queue: CeleryRedisQueue,
    start_worker: StartWorker,
    make_request: MakeRequest,
    gate: Path,
) -> None:
    start_worker(redis)
    told = await queue.submit(make_request("told before"), key="before")
    told = await queue.wait(told.id, LONG)
    running = await queue.submit(make_request(f"half {gate}"))
    await until_told(queue, running)

    # Redis writes its file every second; what is older is safe even from a crash.
    await asyncio.sleep(1)
    redis.stop()
    with pytest.raises(QueueDownError, match=r"Redis at 127\.0\.0\.1"):
        await queue.get(running.id)
    with pytest.raises(QueueDownError):
        await queue.submit(make_request())
    gate.touch()
    await asyncio.sleep(OUTAGE_SECONDS)
    redis.start()

    assert (await queue.wait(running.id, LONG)).state is State.SUCCESS
    assert await queue.submit(make_request("told before"), key="before") == told
    later = await queue.submit(make_request())
    assert (await queue.wait(later.id, LONG)).state is State.SUCCESS


async def test_many_more_clients_may_wait_than_there_are_connections(
    redis: RedisServer,
    queue: CeleryRedisQueue,
    start_worker: StartWorker,
    make_request: MakeRequest,
    gate: Path,
) -> None:
    start_worker(redis)
    job = await queue.submit(make_request(f"half {gate}"))
    following = [asyncio.create_task(all_events(queue, job)) for _ in range(100)]
    waiting = [asyncio.create_task(queue.wait(job.id, LONG)) for _ in range(100)]
    await until_told(queue, job)
    # Whoever only asks is not held up by those who wait.
    assert (await queue.get(job.id)).state is State.STARTED
    with Redis.from_url(redis.url) as client:
        assert len(client.client_list()) < 100
    gate.touch()
    for events in await asyncio.gather(*following):
        assert last_job(events).state is State.SUCCESS
    assert {done.state for done in await asyncio.gather(*waiting)} == {State.SUCCESS}


async def test_a_message_that_cannot_be_read_keeps_nobody_waiting(
    redis: RedisServer,
    queue: CeleryRedisQueue,
    start_worker: StartWorker,
    make_request: MakeRequest,
    gate: Path,
) -> None:
    start_worker(redis)
    job = await queue.submit(make_request(f"half {gate}"))
    waiting = asyncio.create_task(queue.wait(job.id, LONG))
    await until_told(queue, job)
    with Redis.from_url(redis.url) as client:
        (channel,) = client.pubsub_channels("{joker}:server:*")
        client.publish(channel, f'{job.id} record {{"state":"UNHEARD OF"}}')
    await asyncio.sleep(2)
    gate.touch()
    done = await asyncio.wait_for(waiting, LONG / 3)
    assert done.state is State.SUCCESS


async def test_a_job_waits_for_the_first_worker(
    redis: RedisServer,
    queue: CeleryRedisQueue,
    start_worker: StartWorker,
    make_request: MakeRequest,
) -> None:
    job = await queue.submit(make_request())
    assert (await queue.wait(job.id, 0.5)).state is State.PENDING
    assert (await queue.stats()).workers == 0
    start_worker(redis)
    assert (await queue.wait(job.id, LONG)).state is State.SUCCESS


async def test_two_workers_tell_each_of_many_jobs_once(
    redis: RedisServer,
    queue: CeleryRedisQueue,
    start_worker: StartWorker,
    make_request: MakeRequest,
) -> None:
    start_worker(redis)
    start_worker(redis)
    jobs = [await queue.submit(make_request(count=1, seed=seed)) for seed in range(40)]
    for job in jobs:
        told = await all_events(queue, job)
        states = [event.job.state for event in told if isinstance(event, StateEvent)]
        assert states == ["PENDING", "STARTED", "SUCCESS"]
        assert [joke.seed for joke in last_job(told).jokes] == [job.request.seed]


async def test_a_burst_of_jobs_takes_no_more_room_than_there_is(
    redis: RedisServer, queue: CeleryRedisQueue, make_request: MakeRequest, gate: Path
) -> None:
    """Messages come faster than jobs are claimed."""
    half = MAX_RUNNING_TOKENS // SEQUENCE_TOKENS // 2
    request = replace(make_request(f"after {gate}", count=1), candidates=half)
    jobs = [await queue.submit(request) for _ in range(6)]
    command = [sys.executable, "-c", SLOW_CLAIMS, str(SCRIPT), redis.url, "8", "10"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as worker:
        try:
            until = time.monotonic() + LONG
            while (await queue.stats()).running < 2:
                assert time.monotonic() < until
                await asyncio.sleep(0.05)
            # What is not fetched now is not fetched before one of the two ends.
            await asyncio.sleep(1.5)
            assert (await queue.stats()).running == 2
            gate.touch()
            for job in jobs:
                assert (await queue.wait(job.id, LONG)).state is State.SUCCESS
        finally:
            worker.kill()


async def test_a_worker_told_to_stop_ends_what_it_has_in_hand(
    redis: RedisServer,
    queue: CeleryRedisQueue,
    start_worker: StartWorker,
    make_request: MakeRequest,
    gate: Path,
) -> None:
    worker = start_worker(redis)
    job = await queue.submit(make_request(f"half {gate}"))
    await until_told(queue, job)
    worker.terminate()
    await asyncio.sleep(0.5)
    gate.touch()
    done = await queue.wait(job.id, LONG)
    assert (done.state, done.attempts) == (State.SUCCESS, 1)
    assert await asyncio.to_thread(worker.wait, LONG) == 0
    assert (await queue.stats()).workers == 0


async def test_a_full_redis_takes_no_job_in_and_loses_none(
    start_redis: Callable[..., RedisServer],
    start_worker: StartWorker,
    make_request: MakeRequest,
    gate: Path,
) -> None:
    redis = start_redis(maxmemory="12mb", **{"maxmemory-policy": "noeviction"})
    queue = CeleryRedisQueue(redis.url, deadline_seconds=LONG)
    start_worker(redis)
    running = await queue.submit(make_request(f"half {gate}"))
    await until_told(queue, running)
    waiting = await queue.submit(make_request())
    with Redis.from_url(redis.url) as client:
        # Buffers are freed a little later, so it is filled again.
        for size in (2**14, 2**14, 2**7):
            fill(client, size)
            await asyncio.sleep(1.1)
        await asyncio.sleep(1.1)
        with pytest.raises(MemoryFullError, match="memory"):
            await queue.submit(make_request())
        stats = await queue.stats()
        assert (stats.memory_bytes or 0) > (stats.memory_limit_bytes or 0) - 2**19 > 0
        # Leases are renewed, and what was told is written.
        await asyncio.sleep(3)
        gate.touch()
        for job in (running, waiting):
            done = await queue.wait(job.id, LONG)
            assert (done.state, done.attempts) == (State.SUCCESS, 1)
        client.delete("filler")
    await asyncio.sleep(1.1)
    job = await queue.submit(make_request())
    assert (await queue.wait(job.id, LONG)).state is State.SUCCESS
    await queue.close()


async def test_a_new_version_takes_over_while_redis_is_full(
    redis: RedisServer,
    queue: CeleryRedisQueue,
    start_worker: StartWorker,
    make_request: MakeRequest,
) -> None:
    job = await queue.submit(make_request())
    with Redis.from_url(redis.url, decode_responses=True) as client:
        client.function_flush("SYNC")  # Of the new version, Redis knows no functions.
        client.config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            client.function_load(LIBRARY)
        assert (await queue.get(job.id)).state is State.PENDING
        start_worker(redis)
        assert (await queue.wait(job.id, LONG)).state is State.SUCCESS
        assert not client.function_list()
        with pytest.raises(MemoryFullError):
            await queue.submit(make_request())
        client.config_set("maxmemory", 0)
        await asyncio.sleep(1.1)  # A server looks once a second.
        job = await queue.submit(make_request())
        assert (await queue.wait(job.id, LONG)).state is State.SUCCESS
        assert client.function_list()


async def test_a_message_that_a_killed_worker_had_fetched_is_not_lost(
    redis: RedisServer,
    queue: CeleryRedisQueue,
    start_worker: StartWorker,
    make_request: MakeRequest,
) -> None:
    worker = start_worker(redis)
    told = await queue.submit(make_request())
    assert (await queue.wait(told.id, LONG)).state is State.SUCCESS
    # Redis hands the next message to the read that is pending, though nobody will see it.
    worker.send_signal(signal.SIGSTOP)
    job = await queue.submit(make_request())
    with Redis.from_url(redis.url) as client:
        client.delete(MESSAGES)
    worker.kill()
    worker.wait()
    start_worker(redis)
    assert (await queue.wait(job.id, LONG)).state is State.SUCCESS


async def test_without_any_worker_the_deadline_still_holds(
    redis: RedisServer, make_request: MakeRequest
) -> None:
    queue = CeleryRedisQueue(redis.url, deadline_seconds=0.5, max_queue_size=1)
    job = await queue.submit(make_request())
    done = await queue.wait(job.id, LONG)
    assert done.state is State.FAILURE
    assert done.error is not None
    assert "within 0.5 seconds" in done.error
    # What failed waits no more, so there is room again.
    assert (await queue.submit(make_request())).state is State.PENDING
    await queue.close()


async def test_a_redis_that_is_not_there_is_named_without_its_password(
    make_request: MakeRequest,
) -> None:
    queue = CeleryRedisQueue("redis://:secret@127.0.0.1:1/0")
    with pytest.raises(QueueDownError, match=r"127\.0\.0\.1:1") as raised:
        await queue.submit(make_request())
    assert "secret" not in str(raised.value)
    await queue.close()
