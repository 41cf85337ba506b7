"""Clients for `benchmarks.faults` that retry until they get their jokes, and their outcomes.

They retry at any server with the same idempotency key, and resume broken streams after the last
event. Two in ten replay their request after the job has ended.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2

from joker.jobs.job import State

CLIENTS = 72
DEADLINE_SECONDS = 120.0
RETRY_SECONDS = 0.2
MAX_ROUNDS = 10


@dataclass
class Outcome:
    """What a client got for its seed.

    Attributes:
        seed: The seed, which determines the request.
        ids: Ids of the jobs; more than one is an error.
        task: The last representation of the job.
        repeated: Whether a joke came twice in the job's stream.
        changed: Whether a replayed request got a different result.
        seconds: How long it took.
    """

    seed: int
    ids: set[str] = field(default_factory=set)
    task: dict[str, Any] = field(default_factory=dict)
    repeated: bool = False
    changed: bool = False
    seconds: float = 0.0

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return bool(self.task) and State(self.task["state"]).final

    @property
    def told(self) -> bool:
        """Whether the job succeeded."""
        return self.final and self.task["state"] == State.SUCCESS

    @property
    def wrong(self) -> bool:
        """Whether the jokes do not match the request."""
        questions = [joke["question"] for joke in self.task["result"] or ()]
        return self.told and questions != [prompt_of(self.seed)] * count_of(self.seed)


class Clients:
    """Clients that request one or two jokes at a time until the jobs have ended.

    Attributes:
        outcomes: The outcome of each job.
        statuses: The number of responses by status.
        broken: The number of connections that failed.
    """

    def __init__(self, addresses: list[str], rng: random.Random) -> None:
        self._addresses = addresses
        self._rng = rng
        self.outcomes: list[Outcome] = []
        self.statuses: Counter[int] = Counter()
        self.broken = 0

    async def run(self, jobs: int, keep_going: Callable[[], bool]) -> None:
        """Request jobs; after that number, up to `MAX_ROUNDS` times as many while told to."""
        seeds = (seed for seed in range(MAX_ROUNDS * jobs) if seed < jobs or keep_going())

        async def run_client() -> None:
            for seed in seeds:
                outcome = Outcome(seed)
                self.outcomes.append(outcome)
                with suppress(TimeoutError):
                    async with asyncio.timeout(2 * DEADLINE_SECONDS):
                        await self._run_job(outcome)

        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(timeout=30, limits=limits) as self._http:
            await asyncio.gather(*(run_client() for _ in range(CLIENTS)))

    async def _run_job(self, outcome: Outcome) -> None:
        began = time.monotonic()
        await self._submit(outcome)
        if outcome.seed % 2 and not outcome.final:
            await self._follow(outcome)
        while not outcome.final:
            await self._submit(outcome)
        outcome.seconds = time.monotonic() - began
        if outcome.seed % 10 < 2:
            first = outcome.task
            await self._submit(outcome)
            outcome.changed = outline_of(outcome.task) != outline_of(first)

    async def _submit(self, outcome: Outcome) -> None:
        """Submit until a server accepts the job; clients with even seeds wait for its result."""
        seed = outcome.seed
        body = {"prompt": prompt_of(seed), "n": count_of(seed), "seed": seed, "candidates": 1}
        headers = {"Idempotency-Key": f"seed {seed}"} | ({} if seed % 2 else {"Prefer": "wait=10"})
        while True:
            with self._count_broken():
                response = await self._http.post(
                    f"{self._any_server()}/generate", json=body | {"safe": False}, headers=headers
                )
                self.statuses[response.status_code] += 1
                if response.is_success:
                    outcome.task = response.json()
                    outcome.ids.add(outcome.task["task_id"])
                    return
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, outcome: Outcome) -> None:
        """Read a job's events to the end, resuming the stream at any server."""
        last_id, indices = "", list[int]()
        while not outcome.final:
            with self._count_broken():
                address = f"{self._any_server()}/generate/{outcome.task['task_id']}/events"
                headers = {"Last-Event-ID": last_id}
                async with self._http.stream("GET", address, headers=headers) as response:
                    self.statuses[response.status_code] += 1
                    fields: dict[str, str] = {}
                    async for line in response.aiter_lines():
                        name, _, fields[name] = line.partition(": ")
                        if line or not fields.get("event"):
                            continue
                        data, last_id = json.loads(fields["data"]), fields["id"]
                        if fields["event"] == "joke":
                            indices.append(data["index"])
                        elif fields["event"] == "state":
                            outcome.task = data
                            if data["state"] == State.PENDING:
                                indices.clear()  # an attempt was lost, and its jokes with it
                        fields = {}
            await asyncio.sleep(0 if outcome.final else RETRY_SECONDS)
        outcome.repeated = len(indices) > len(set(indices))

    def _any_server(self) -> str:
        return self._rng.choice(self._addresses)

    @contextmanager
    def _count_broken(self) -> Iterator[None]:
        """Count and suppress connection errors."""
        try:
            yield
        except httpx2.TransportError:
            self.broken += 1


def prompt_of(seed: int) -> str:
    """Return a question that is unique to the seed; the stub engine repeats it in its joke."""
    return f"What is number {seed}?"


def count_of(seed: int) -> int:
    """Return the number of jokes to request for a seed."""
    return 1 + seed % 2


def outline_of(task: dict[str, Any]) -> Any:
    """Return what every server must answer alike; joke ids belong to each server's own store."""
    jokes = [(joke["question"], joke["answer"], joke["seed"]) for joke in task["result"] or ()]
    return task["task_id"], task["state"], jokes
