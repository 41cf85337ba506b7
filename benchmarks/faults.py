"""Fault injection: jobs over HTTP and a real Redis while servers, workers and Redis fail.

    python -m benchmarks.faults --jobs 10000

Several servers (`joker serve`) and workers with the stub engine share a Redis, and
`benchmarks.retrying_clients` request jokes. In turn, a worker or a server is killed, or stopped for
longer than a lease; Redis is restarted from its append-only file, loses all its connections, or is
filled to its limit. One server's clock is an hour fast. Clients continue until every fault was
injected at least once.

Exits with 1 if a job was lost, completed twice, told the wrong joke or did not end, or if a fault
was never injected.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
from redis import Redis
from redis.exceptions import RedisError

from benchmarks.retrying_clients import DEADLINE_SECONDS, Clients
from benchmarks.servers import free_port
from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.jobs.job import State

WORKERS = 3
LEASE_SECONDS = 2.0
MEMORY_BYTES = 64 * 2**20
SKEWS_SECONDS = (0.0, 3600.0, 0.0)
PAUSE_SECONDS = 1.0
MAX_FAULTS = 100
SETTINGS = {
    "JOKER_CONCURRENCY": "8",
    "JOKER_DATABASE": "sqlite://",
    "JOKER_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
    "JOKER_ENGINE": "stub",
    "JOKER_LEASE_SECONDS": str(LEASE_SECONDS),
    "JOKER_POOL_SIZE": "0",
    "JOKER_RATE_LIMIT": "",
    "JOKER_RESULT_TTL_SECONDS": "3600",
}
SERVE = """
import runpy, sys, time

now, skew_seconds = time.time, float(sys.argv.pop(1))
time.time = lambda: now() + skew_seconds
runpy.run_module("joker", run_name="__main__")
"""


def main(arguments: list[str]) -> int:
    """Run the trial, or one of its workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="minimum number of jobs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work-seconds", type=float, default=0.1, help="maximum work per job")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return run_slow_worker(options.work_seconds)
    # On SIGTERM, exit normally, so that all started processes are ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        rng = random.Random(options.seed)
        return Trial(Path(folder), options.jobs, options.work_seconds, rng).run()


def run_slow_worker(max_seconds: float) -> int:
    """Run a worker whose jobs take some time."""
    from joker.compose import open_teller
    from joker.settings import load_settings
    from joker.worker import run_worker

    settings = load_settings()

    def open_slow_work() -> Any:
        tell = open_teller(settings, shared=True).tell

        def tell_slowly(
            request: GenerationRequest, listener: GenerationListener
        ) -> list[GeneratedJoke]:
            time.sleep(random.Random(request.seed).random() * max_seconds)
            return tell(request, listener)

        return tell_slowly

    return run_worker(settings, open_slow_work)


class Trial:
    """A Redis, servers and workers, and the faults that are injected."""

    def __init__(self, folder: Path, jobs: int, work_seconds: float, rng: random.Random) -> None:
        self._folder = folder
        self._jobs = jobs
        self._work_seconds = work_seconds
        self._rng = rng
        self._port, *self._web_ports = (free_port() for _ in range(1 + len(SKEWS_SECONDS)))
        self._url = f"redis://127.0.0.1:{self._port}/0"
        self._environment = os.environ | SETTINGS | {"JOKER_BROKER": self._url}
        self._log = (folder / "log").open("w")
        self._faults = {
            "cut connections": self._cut_connections,
            "kill worker": self._kill_worker,
            "restart redis": self._restart_redis,
            "kill server": self._kill_server,
            "stop worker": self._stop_worker,
            "fill redis": self._fill_redis,
            "stop server": self._stop_server,
        }
        self._injected: Counter[str] = Counter()
        self._finals: Counter[str] = Counter()
        self._ended = threading.Event()
        self._servers: list[subprocess.Popen[bytes]] = []
        self._workers: list[subprocess.Popen[bytes]] = []

    def run(self) -> int:
        """Run the trial, print its table and return the exit code."""
        self._start_redis()
        try:
            self._workers += [self._start_worker() for _ in range(WORKERS)]
            self._servers += [self._start_server(index) for index in range(len(SKEWS_SECONDS))]
            addresses = [f"http://127.0.0.1:{port}" for port in self._web_ports]
            self._wait_until_ready(addresses)
            clients = Clients(addresses, random.Random(self._rng.random()))
            began = time.monotonic()
            self._run_clients(clients)
            return self._report(clients, self._count_records(), time.monotonic() - began)
        finally:
            for process in (*self._servers, *self._workers, self._redis):
                process.kill()
                process.wait()

    def _wait_until_ready(self, addresses: list[str]) -> None:
        """Wait for all servers and workers, without readiness probes, which would submit jobs."""
        waiting = list(addresses)
        while waiting:
            with suppress(httpx2.TransportError):
                httpx2.get(f"{waiting[0]}/health/live", timeout=30)
                waiting.pop(0)
            time.sleep(0.1)
        with Redis.from_url(self._url) as redis:
            while redis.zcard("{joker}:workers") < WORKERS:
                time.sleep(0.2)

    def _run_clients(self, clients: Clients) -> None:
        """Run the clients while faults are injected."""
        threads = [threading.Thread(target=target) for target in (self._audit, self._inject_faults)]
        for thread in threads:
            thread.start()
        try:
            asyncio.run(clients.run(self._jobs, lambda: len(self._injected) < len(self._faults)))
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, *command], stdout=self._log, stderr=self._log, env=self._environment
        )

    def _start_worker(self) -> subprocess.Popen[bytes]:
        seconds = str(self._work_seconds)
        return self._start("-m", "benchmarks.faults", "--worker", "--work-seconds", seconds)

    def _start_server(self, index: int) -> subprocess.Popen[bytes]:
        skew_seconds, port = str(SKEWS_SECONDS[index]), str(self._web_ports[index])
        return self._start("-c", SERVE, skew_seconds, "serve", "--port", port)

    def _start_redis(self) -> None:
        """Start Redis, loading its append-only file if there is one, and wait until it answers."""
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

    def _inject_faults(self) -> None:
        """Inject one fault after another until all clients have finished."""
        min_finals = 0
        for name, fault in itertools.cycle(self._faults.items()):
            # Let jobs finish between two faults, however slow the machine is.
            while self._ended.wait(PAUSE_SECONDS) or len(self._finals) <= min_finals:
                if self._ended.is_set():
                    return
            min_finals = len(self._finals) + self._jobs // MAX_FAULTS
            with suppress(RedisError):
                fault()
                self._injected[name] += 1

    def _kill_worker(self) -> None:
        index = self._rng.randrange(WORKERS)
        self._workers[index].kill()
        self._workers[index].wait()
        self._workers[index] = self._start_worker()

    def _kill_server(self) -> None:
        index = self._rng.randrange(len(self._servers))
        self._servers[index].kill()
        self._servers[index].wait()
        self._servers[index] = self._start_server(index)

    def _stop_worker(self) -> None:
        self._pause(self._rng.choice(self._workers))

    def _stop_server(self) -> None:
        self._pause(self._rng.choice(self._servers))

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
        """Count the final states that Redis publishes: each job must have exactly one."""
        while not self._ended.is_set():
            with (
                suppress(RedisError, OSError),
                Redis.from_url(self._url, decode_responses=True, protocol=2) as redis,
                redis.pubsub() as channels,
            ):
                channels.psubscribe("{joker}:server:*")
                while not self._ended.is_set():
                    message = channels.get_message(timeout=0.5)
                    if message and message["type"] == "pmessage":
                        self._count_final(message["channel"], message["data"])
            self._ended.wait(0.1)

    def _count_final(self, channel: str, message: str) -> None:
        job_id, kind, data = message.split(" ", 2)
        if kind == "record" and State(json.loads(data)["state"]).final:
            # Each server that watches the job is notified once.
            self._finals[f"{job_id} {channel}"] += 1

    def _count_records(self) -> tuple[int, int]:
        """Return the numbers of jobs and of unfinished jobs in Redis."""
        with Redis.from_url(self._url) as redis:
            records = sum(1 for _ in redis.scan_iter("{joker}:job:*", count=1000))
            unfinished = redis.zcard("{joker}:waiting") + redis.zcard("{joker}:running")
            return records, int(unfinished)

    def _report(self, clients: Clients, records: tuple[int, int], seconds: float) -> int:
        jobs = len(clients.outcomes)
        finals = [outcome for outcome in clients.outcomes if outcome.final]
        repeated_finals = sum(count > 1 for count in self._finals.values())
        expected_responses = sum(clients.statuses[status] for status in (200, 202, 503))
        checks = {
            "lost": max(0, jobs - records[0]),
            "told twice": max(0, records[0] - jobs)
            + sum(len(outcome.ids) > 1 or outcome.repeated for outcome in finals)
            + repeated_finals,
            "not ended": jobs - len(finals) + records[1],
            "wrong jokes": sum(outcome.wrong for outcome in finals),
            "different results for a key": sum(outcome.changed for outcome in finals),
            "unexpected statuses": clients.statuses.total() - expected_responses,
            "faults never injected": len(self._faults) - len(self._injected),
        }
        slowest = max((outcome.seconds for outcome in finals), default=0.0)
        rows = {
            "jobs": jobs,
            "seconds": round(seconds),
            **{name: self._injected[name] for name in sorted(self._faults)},
            "told": sum(outcome.told for outcome in finals),
            "failed with a reason": sum(bool(outcome.task["error"]) for outcome in finals),
            "slowest, seconds": round(slowest, 1),
            "broken connections": clients.broken,
            "responses with status 503": clients.statuses[503],
            "final states published": len(self._finals),
            "jobs in Redis": records[0],
            **checks,
        }
        for name, value in rows.items():
            print(f"{name:34}{value:>8}")
        return int(any(checks.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
