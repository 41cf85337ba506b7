"""Jobs sent through a real Redis while everything around them fails.

    python benchmarks/faults.py --jobs 10000

Several client processes submit jobs and wait for them as servers do, several worker processes tell
one joke a job, and in turn a worker is killed, a worker or a client is stopped for longer than a
lease, Redis is restarted from its append-only file, all connections are cut, and Redis is filled
to its limit. One client's clock is an hour fast. Every tenth idempotency key is used again.

Exits with 1 if a job was lost, was told twice, told something else, or did not end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from joker.core.errors import QueueDownError, QueueFullError
from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.job import Job, State

CLIENTS = 3
WORKERS = 3
THREADS = 8
AT_ONCE = 24
LEASE_SECONDS = 2.0
DEADLINE_SECONDS = 120.0
REPLAYED = 10
MEMORY_BYTES = 64 * 2**20
SKEW_SECONDS = 3600.0
PAUSE_SECONDS = 1.0


def main(arguments: list[str]) -> int:
    """Run the clients, the workers or all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work-seconds", type=float, default=0.1, help="longest work of a job")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.role:
        role, url, *rest = options.role
        return work(url, *rest) if role == "worker" else asyncio.run(ask(url, *rest))
    # What was started is ended, too, when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        chance = random.Random(options.seed)
        return Trial(Path(folder), options.jobs, options.work_seconds, chance).run()


def work(url: str, longest_seconds: str) -> int:
    """Be a worker, which tells the joke that a seed names."""
    from joker.settings import read_settings
    from joker.worker.app import run_worker

    settings = read_settings(
        broker=url,
        concurrency=THREADS,
        deadline_seconds=DEADLINE_SECONDS,
        lease_seconds=LEASE_SECONDS,
    )

    def tell(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        joke = GeneratedJoke(f"What is number {request.seed}?", "A test.", request.seed, 1)
        time.sleep(random.Random(request.seed).random() * float(longest_seconds))
        listener.on_draft(0, joke.question, "")
        listener.on_joke(0, joke)
        return [joke]

    return run_worker(settings, lambda: tell)


async def ask(url: str, path: str, first: str, behind: str, skew_seconds: str) -> int:
    """Be a client: send the jobs of some seeds and write down what became of each."""
    now = time.time
    time.time = lambda: now() + float(skew_seconds)
    queue = CeleryRedisQueue(
        url, max_queue_size=200, deadline_seconds=DEADLINE_SECONDS, result_ttl_seconds=600
    )
    seeds = iter(range(int(first), int(behind)))
    with Path(path).open("w") as file:

        async def one(seed: int) -> None:
            began = time.monotonic()
            job = await submit(queue, seed)
            while True:
                with suppress(QueueDownError):
                    done = await queue.wait(job.id, DEADLINE_SECONDS)
                    break
                await asyncio.sleep(0.2)
            seconds = time.monotonic() - began
            same = seed % REPLAYED > 0 or await submit(queue, seed) == done
            fields = {
                "id": done.id,
                "seed": seed,
                "state": done.state,
                "attempts": done.attempts,
                "told": [joke.seed for joke in done.jokes],
                "same": same,
                "seconds": seconds,
            }
            file.write(json.dumps(fields) + "\n")
            file.flush()

        async def several() -> None:
            for seed in seeds:
                await one(seed)

        await asyncio.gather(*(several() for _ in range(AT_ONCE)))
    await queue.close()
    return 0


async def submit(queue: CeleryRedisQueue, seed: int) -> Job:
    """Submit a seed's job, again and again with its key until it is taken in."""
    request = GenerationRequest("What is", seed=seed, safe=False, candidates=1)
    while True:
        with suppress(QueueDownError, QueueFullError):
            return await queue.submit(request, key=f"seed {seed}")
        await asyncio.sleep(0.2)


class Trial:
    """A Redis, its clients and workers, and what is done to them."""

    def __init__(self, folder: Path, jobs: int, work_seconds: float, chance: random.Random) -> None:
        self._folder = folder
        self._jobs = jobs
        self._work_seconds = work_seconds
        self._chance = chance
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._url = f"redis://127.0.0.1:{self._port}/0"
        self._log = (folder / "log").open("w")
        self._faults: Counter[str] = Counter()
        self._finals: Counter[str] = Counter()
        self._over = threading.Event()

    def run(self) -> int:
        """Run the trial, print its table and return the exit code."""
        began = time.monotonic()
        self._start_redis()
        self._workers = [self._start_worker() for _ in range(WORKERS)]
        bounds = [self._jobs * number // CLIENTS for number in range(CLIENTS + 1)]
        paths = [self._folder / f"client-{number}" for number in range(CLIENTS)]
        self._clients = [
            self._start("client", str(path), str(first), str(behind), str(skew))
            for path, (first, behind), skew in zip(
                paths, itertools.pairwise(bounds), (0.0, SKEW_SECONDS, 0.0), strict=True
            )
        ]
        auditor = threading.Thread(target=self._audit)
        auditor.start()
        try:
            self._harm()
        finally:
            self._over.set()
            auditor.join()
            for process in (*self._clients, *self._workers, self._redis):
                process.kill()
                process.wait()
        ends = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
        return self._report(ends, time.monotonic() - began)

    def _start(self, *role: str) -> subprocess.Popen[bytes]:
        name, *rest = role
        command = [sys.executable, __file__, "--role", name, self._url, *rest]
        return subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def _start_worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker", str(self._work_seconds))

    def _start_redis(self) -> None:
        """Start Redis on the append-only file that is there, and wait until it answers."""
        options = {
            "--bind": "127.0.0.1",
            "--port": str(self._port),
            "--dir": str(self._folder),
            "--appendonly": "yes",
            "--save": "",
            "--maxmemory": str(MEMORY_BYTES),
            "--maxmemory-policy": "noeviction",
        }
        command = ["redis-server", *(part for option in options.items() for part in option)]
        self._redis = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        with Redis.from_url(self._url) as redis:
            while True:
                with suppress(RedisError):
                    redis.ping()
                    return
                time.sleep(0.05)

    def _harm(self) -> None:
        """Do one fault after another until all clients have what they asked for."""
        faults = (
            self._cut_connections,
            self._kill_worker,
            self._restart_redis,
            self._stop_worker,
            self._fill_redis,
            self._stop_client,
        )
        while not self._finals and any(client.poll() is None for client in self._clients):
            self._over.wait(0.1)
        for fault in itertools.cycle(faults):
            self._over.wait(PAUSE_SECONDS)
            if all(client.poll() is not None for client in self._clients):
                return
            with suppress(RedisError):
                fault()
                self._faults[fault.__name__.strip("_").replace("_", " ")] += 1

    def _kill_worker(self) -> None:
        place = self._chance.randrange(WORKERS)
        self._workers[place].kill()
        self._workers[place].wait()
        self._workers[place] = self._start_worker()

    def _stop_worker(self) -> None:
        self._pause(self._chance.choice(self._workers))

    def _stop_client(self) -> None:
        self._pause(self._chance.choice(self._clients))

    def _pause(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5 * LEASE_SECONDS)
        process.send_signal(signal.SIGCONT)

    def _cut_connections(self) -> None:
        with Redis.from_url(self._url) as redis:
            for kind in ("normal", "pubsub"):
                redis.client_kill_filter(_type=kind, skipme=True)

    def _fill_redis(self) -> None:
        with Redis.from_url(self._url) as redis:
            names = [f"filler:{number}" for number in range(MEMORY_BYTES // 2**19)]
            try:
                for name in names:
                    redis.set(name, b"x" * 2**19)
            except RedisError:
                time.sleep(LEASE_SECONDS)
            finally:
                redis.delete(*names)

    def _restart_redis(self) -> None:
        self._redis.terminate()
        self._redis.wait()
        time.sleep(1)
        self._start_redis()

    def _audit(self) -> None:
        """Hear what Redis says of final states: a job has one."""
        while not self._over.is_set():
            with (
                suppress(RedisError, OSError),
                Redis.from_url(self._url, decode_responses=True, protocol=2) as redis,
                redis.pubsub() as channels,
            ):
                channels.psubscribe("{joker}:server:*")
                while not self._over.is_set():
                    message = channels.get_message(timeout=0.5)
                    if message and message["type"] == "pmessage":
                        job_id, kind, data = message["data"].split(" ", 2)
                        if kind == "record" and State(json.loads(data)["state"]).final:
                            self._finals[job_id] += 1
            self._over.wait(0.1)

    def _report(self, ends: list[dict[str, object]], seconds: float) -> int:
        states = Counter(str(end["state"]) for end in ends)
        told = [end for end in ends if end["state"] == State.SUCCESS]
        unended = sum(not State(state).final for state in states.elements())
        lost = self._jobs - len({end["seed"] for end in ends})
        twice = len(ends) - len({end["id"] for end in ends})
        twice += sum(number > 1 for number in self._finals.values())
        wrong = sum(end["told"] != [end["seed"]] for end in told)
        changed = sum(not end["same"] for end in ends)
        rows = {
            "jobs": self._jobs,
            "seconds": round(seconds),
            **dict(sorted(self._faults.items())),
            "told": len(told),
            "told after a lost attempt": sum(end["attempts"] != 1 for end in told),
            "failed with a reason": states["FAILURE"],
            "slowest, seconds": round(max((float(str(e["seconds"])) for e in ends), default=0), 1),
            "ends heard by the auditor": len(self._finals),
            "lost": lost,
            "told twice": twice,
            "not ended": unended,
            "another joke than asked for": wrong,
            "another answer to the same key": changed,
        }
        for name, number in rows.items():
            print(f"{name:34}{number:>8}")
        return int(any((lost, twice, unended, wrong, changed)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
