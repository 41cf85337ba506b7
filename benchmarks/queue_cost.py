"""What one job costs Redis: commands, CPU time, and memory of the finished job.

    python -m benchmarks.queue_cost --jobs 500

Starts a Redis and one worker process whose work shows ten drafts and tells one joke. Each job is
waited for and followed, as by the server; several run at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from redis import Redis

from benchmarks.servers import free_port, running
from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.job import State

DRAFTS = 10
JOKE = GeneratedJoke(
    "Why did the queue cross the road?", "It was next in line for the other side.", 7, 1
)


def tell(_: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
    """Tell a joke in drafts, in a twentieth of a second."""
    for length in range(DRAFTS):
        listener.on_draft(0, JOKE.question[: 3 * length], "")
        time.sleep(0.005)
    listener.on_joke(0, JOKE)
    return [JOKE]


async def measure(url: str, jobs: int, concurrency: int) -> None:
    """Run jobs and print the averages."""
    queue = CeleryRedisQueue(url, max_queue_size=10_000)
    slots = asyncio.Semaphore(concurrency)

    async def run_job(seed: int) -> None:
        async with slots:
            request = GenerationRequest("Why did", seed=seed, safe=False, candidates=1)
            job = await queue.submit(request)
            follower = asyncio.create_task(follow(queue, job.id))
            done = await queue.wait(job.id, 60)
            assert done.state is State.SUCCESS, done
            await follower

    await run_job(0)
    with Redis.from_url(url, decode_responses=True) as redis:
        while not (await queue.stats()).workers:
            await asyncio.sleep(0.1)
        before = redis.info("everything")
        began = time.perf_counter()
        await asyncio.gather(*(run_job(seed) for seed in range(jobs)))
        seconds = time.perf_counter() - began
        after = redis.info("everything")
        calls = {
            name: (after[name]["calls"] - before.get(name, {"calls": 0})["calls"]) / jobs
            for name in after
            if name.startswith("cmdstat_")
        }
        cpu = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys"))
        keys = list(redis.scan_iter("*joker*", count=1000))
        memory_bytes = sum(redis.memory_usage(key, samples=0) or 0 for key in keys)
        print(f"jobs/s                {jobs / seconds:.1f}")
        print(f"commands a job        {sum(calls.values()):.1f}")
        print(f"Redis CPU a job, ms   {1000 * cpu / jobs:.2f}")
        print(f"bytes a finished job  {memory_bytes / (jobs + 1):.0f}")
        for name, count in sorted(calls.items(), key=lambda item: -item[1]):
            if count >= 0.05:
                print(f"  {name.removeprefix('cmdstat_'):20}{count:.2f}")
    await queue.close()


async def follow(queue: CeleryRedisQueue, job_id: str) -> None:
    """Read a job's events to the end."""
    async for _ in queue.events(job_id):
        pass


def main(arguments: list[str]) -> None:
    """Measure, or run the worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--worker", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        from joker.settings import load_settings
        from joker.worker import run_worker

        settings: Any = load_settings(broker=options.worker, concurrency=8)
        sys.exit(run_worker(settings, lambda: tell))
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        redis = ["redis-server", "--port", str(port), "--dir", folder]
        stack.enter_context(running([*redis, "--save", "", "--appendonly", "yes"], port))
        worker = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.queue_cost", "--worker", url],
            stderr=subprocess.DEVNULL,
        )
        try:
            asyncio.run(measure(url, options.jobs, options.concurrency))
        finally:
            worker.terminate()
            worker.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
