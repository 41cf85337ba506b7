"""Jokes a second of 1, 2 and 4 workers on networks of their own, and whether each is told once.

    sudo python benchmarks/scale_out.py [--jobs 200] [--kill] [--engine stub]

Redis and whoever asks stand in one network namespace, each worker in another, joined by a bridge
as machines by a switch. A worker may use one core, the next one the next core, and so on round:
two workers have twice what one has while there are cores. `--kill` ends one worker of several
in mid-work as a power cut would. A job is lost if it has no joke in the end, and repeated if more
than one end was recorded. Needs root, `ip`, `taskset` and `redis-server`; removes what it made.
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
OUTSTANDING = 32
PATIENCE_SECONDS = 300.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--engine", help="as JOKER_ENGINE; by default what suits the model")
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
        # Nobody else is on this network, so the Redis may do without a password.
        redis = ["redis-server", "--bind", f"{NETWORK}.1", "--protected-mode", "no"]
        keep = ["--dir", folder, "--appendonly", "yes", "--save", "", "--loglevel", "warning"]
        stack.enter_context(process(inside(HUB, [*redis, *keep])))
        for count in options.workers:
            measure(count, options.jobs, options.engine, kill=options.kill and count > 1)


def measure(workers: int, jobs: int, engine: str | None, *, kill: bool) -> None:
    """Print one line for so many workers."""
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
        driven.stdout.readline()  # the first jobs are told
        if kill:
            running[0].kill()
        found = json.loads(driven.stdout.readline())
    print(
        f"{workers} workers{', one killed' if kill else ''}: "
        f"{jobs / found['seconds']:.2f} jokes/s, lost {found['lost']}, "
        f"repeated {found['repeated']}, told at a second attempt {found['again']}",
        flush=True,
    )


async def drive(jobs: int, workers: int) -> None:
    """Ask for jokes and print what became of them; runs in a process of its own."""
    queue = CeleryRedisQueue(URL, max_queue_size=OUTSTANDING, deadline_seconds=PATIENCE_SECONDS)
    while (await queue.stats()).workers < workers:
        await asyncio.sleep(0.1)
    slots = asyncio.Semaphore(OUTSTANDING)

    async def one(seed: int) -> Job:
        request = GenerationRequest(seed=seed, safe=False, candidates=1)
        async with slots:
            job = await queue.submit(request)
            return await queue.wait(job.id, PATIENCE_SECONDS)

    await asyncio.gather(*map(one, range(OUTSTANDING)))  # warms up
    print("begun", flush=True)
    start = time.perf_counter()
    told = await asyncio.gather(*map(one, range(OUTSTANDING, OUTSTANDING + jobs)))
    seconds = time.perf_counter() - start
    ends = [await count_ends(queue, job) for job in told]
    figures = {
        "seconds": seconds,
        "lost": sum(job.state is not State.SUCCESS or len(job.jokes) != 1 for job in told),
        "repeated": sum(number != 1 for number in ends),
        "again": sum(job.attempts > 1 for job in told),
    }
    await queue.close()
    print(json.dumps(figures), flush=True)


async def count_ends(queue: CeleryRedisQueue, job: Job) -> int:
    """Return how many times a job was said to be told."""
    events = [event async for event in queue.events(job.id)]
    told = [event for event in events if isinstance(event, StateEvent)]
    return sum(event.job.state is State.SUCCESS for event in told)


def connect(name: str, cable: str, address: str) -> None:
    """Join a worker's namespace to the bridge."""
    run("ip", "-n", HUB, "link", "add", cable, "type", "veth", "peer", "eth0", "netns", name)
    run("ip", "-n", HUB, "link", "set", cable, "master", "bridge", "up")
    run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    run("ip", "-n", name, "link", "set", "eth0", "up")


def inside(name: str, command: Sequence[str]) -> list[str]:
    """Return a command that runs in a namespace."""
    return ["ip", "netns", "exec", name, *command]


@contextmanager
def namespace(name: str) -> Iterator[None]:
    """Give a network namespace, which takes its end of a cable along when it goes."""
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
    """Give a process that is ended, whatever happens; what it prints can be read."""
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
