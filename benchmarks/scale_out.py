"""Jokes per second of 1, 2 and 4 workers on separate networks, and whether each is told once.

    sudo python benchmarks/scale_out.py [--jobs 200] [--kill] [--engine stub]

Redis and the client run in one network namespace and each worker in another, connected by a bridge.
Each worker is pinned to one core, in turn. `--kill` kills one of several workers while jobs run. A
job is lost if it ends without a joke, and repeated if it has more than one SUCCESS event. Needs
root, `ip`, `taskset` and `redis-server`; removes the namespaces at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from joker.generation.request import GenerationRequest
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.job import Job, State, StateEvent

HUB = "joker-hub"
NETWORK = "10.213.77"
URL = f"redis://{NETWORK}.1:6379/0"
CONCURRENCY = 32
TIMEOUT_SECONDS = 300.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--engine", help="as JOKER_ENGINE")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--drive", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        asyncio.run(drive(*options.drive))
        return
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "taskset", "redis-server"))):
        sys.exit("this needs root, ip, taskset and redis-server")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.enter_context(namespace(HUB))
        run("ip", "-n", HUB, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", HUB, "addr", "add", f"{NETWORK}.1/24", "dev", "bridge")
        for device in ("bridge", "lo"):
            run("ip", "-n", HUB, "link", "set", device, "up")
        # Nothing else is on this network, so Redis needs no password.
        redis = ["redis-server", "--bind", f"{NETWORK}.1", "--protected-mode", "no"]
        redis += ["--dir", folder, "--appendonly", "yes", "--save", "", "--loglevel", "warning"]
        stack.enter_context(process(inside(HUB, redis)))
        for count in options.workers:
            measure(count, options.jobs, options.engine, kill=options.kill and count > 1)


def measure(workers: int, jobs: int, engine: str | None, *, kill: bool) -> None:
    """Print one line for a number of workers."""
    environment = {**os.environ, "JOKER_BROKER": URL, "JOKER_ENGINE": engine or ""}
    with ExitStack() as stack:
        running = []
        for number in range(workers):
            name = f"joker-worker-{number}"
            stack.enter_context(namespace(name))
            connect(name, f"cable-{workers}-{number}", f"{NETWORK}.{number + 2}")
            core = str(number % (os.cpu_count() or 1))
            worker = ["taskset", "-c", core, sys.executable, "-m", "joker", "worker"]
            running.append(stack.enter_context(process(inside(name, worker), environment)))
        driver = inside(HUB, [sys.executable, __file__, "--drive", str(jobs), str(workers)])
        driven = stack.enter_context(process(driver, environment, stderr=None))
        assert driven.stdout
        driven.stdout.readline()  # after the warm-up
        if kill:
            running[0].kill()
        results = json.loads(driven.stdout.readline())
    print(
        f"{workers} workers{', one killed' if kill else ''}: "
        f"{jobs / results['seconds']:.2f} jokes/s, lost {results['lost']}, "
        f"repeated {results['repeated']}, retried {results['retried']}",
        flush=True,
    )


async def drive(jobs: int, workers: int) -> None:
    """Submit jobs and print the results; runs in a process of its own."""
    queue = CeleryRedisQueue(URL, max_queue_size=CONCURRENCY, deadline_seconds=TIMEOUT_SECONDS)
    while (await queue.stats()).workers < workers:
        await asyncio.sleep(0.1)
    slots = asyncio.Semaphore(CONCURRENCY)

    async def run_job(seed: int) -> Job:
        request = GenerationRequest(seed=seed, safe=False, candidates=1)
        async with slots:
            job = await queue.submit(request)
            return await queue.wait(job.id, TIMEOUT_SECONDS)

    await asyncio.gather(*map(run_job, range(CONCURRENCY)))  # warms up
    print("begun", flush=True)
    start = time.perf_counter()
    jobs_done = await asyncio.gather(*map(run_job, range(CONCURRENCY, CONCURRENCY + jobs)))
    seconds = time.perf_counter() - start
    successes = [await count_successes(queue, job) for job in jobs_done]
    results = {
        "seconds": seconds,
        "lost": sum(job.state is not State.SUCCESS or len(job.jokes) != 1 for job in jobs_done),
        "repeated": sum(count > 1 for count in successes),
        "retried": sum(job.attempts > 1 for job in jobs_done),
    }
    await queue.close()
    print(json.dumps(results), flush=True)


async def count_successes(queue: CeleryRedisQueue, job: Job) -> int:
    """Return the number of a job's SUCCESS events."""
    events = [event async for event in queue.events(job.id)]
    states = [event.job.state for event in events if isinstance(event, StateEvent)]
    return states.count(State.SUCCESS)


def connect(name: str, cable: str, address: str) -> None:
    """Connect a worker's namespace to the bridge."""
    run("ip", "-n", HUB, "link", "add", cable, "type", "veth", "peer", "eth0", "netns", name)
    run("ip", "-n", HUB, "link", "set", cable, "master", "bridge", "up")
    run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    run("ip", "-n", name, "link", "set", "eth0", "up")


def inside(name: str, command: Sequence[str]) -> list[str]:
    """Return a command that runs in a namespace."""
    return ["ip", "netns", "exec", name, *command]


@contextmanager
def namespace(name: str) -> Iterator[None]:
    """Create a network namespace; its end of a veth pair is deleted with it."""
    run("ip", "netns", "add", name)
    try:
        yield
    finally:
        run("ip", "netns", "delete", name)


@contextmanager
def process(
    command: Sequence[str],
    environment: dict[str, str] | None = None,
    stderr: int | None = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[str]]:
    """Run a process within the context; its standard output is a pipe."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def run(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
