"""Clients that get their jokes whatever fails, and what became of each: for `benchmarks.faults`.

They ask any server again with the same idempotency key, and continue broken streams from the last
event. Two in ten use their key again after the end.
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

AT_ONCE = 72
DEADLINE_SECONDS = 120.0
REPLAYED = 10
AGAIN_SECONDS = 0.2
MOST = 10


@dataclass
class End:
    """What a client got for its seed.

    Attributes:
        seed: The seed.
        ids: Ids of the jobs; more than one if its key was given to several.
        task: The job in the end.
        repeated: Whether a joke came twice in the job's stream.
        changed: Whether the same key brought another answer later.
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
        """Whether its jokes were told."""
        return self.final and self.task["state"] == State.SUCCESS

    @property
    def wrong(self) -> bool:
        """Whether other jokes were told."""
        questions = [joke["question"] for joke in self.task["result"] or ()]
        return self.told and questions != [prompt_of(self.seed)] * count_of(self.seed)


class Clients:
    """Clients that ask for one joke or two until they are told, and what became of each."""

    def __init__(self, addresses: list[str], chance: random.Random) -> None:
        self._addresses = addresses
        self._chance = chance
        self.ends: list[End] = []
        self.answers: Counter[int] = Counter()
        self.broken = 0

    async def ask(self, jobs: int, goes_on: Callable[[], bool]) -> None:
        """Ask for so many jobs, some at a time, or `MOST` times as many while it goes on."""
        seeds = (seed for seed in range(MOST * jobs) if seed < jobs or goes_on())

        async def several() -> None:
            for seed in seeds:
                end = End(seed)
                self.ends.append(end)
                with suppress(TimeoutError):
                    async with asyncio.timeout(2 * DEADLINE_SECONDS):
                        await self._ask_one(end)

        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(timeout=30, limits=limits) as self._http:
            await asyncio.gather(*(several() for _ in range(AT_ONCE)))

    async def _ask_one(self, end: End) -> None:
        began = time.monotonic()
        await self._submit(end)
        if end.seed % 2 and not end.final:
            await self._follow(end)
        while not end.final:
            await self._submit(end)
        end.seconds = time.monotonic() - began
        if end.seed % REPLAYED < 2:
            told = end.task
            await self._submit(end)
            end.changed = outline_of(end.task) != outline_of(told)

    async def _submit(self, end: End) -> None:
        """Ask until a server takes the job; those who do not read its events wait there."""
        seed = end.seed
        body = {"prompt": prompt_of(seed), "n": count_of(seed), "seed": seed, "candidates": 1}
        headers = {"Idempotency-Key": f"seed {seed}"} | ({} if seed % 2 else {"Prefer": "wait=10"})
        while True:
            with self._trying():
                answer = await self._http.post(
                    f"{self._any_server()}/generate", json=body | {"safe": False}, headers=headers
                )
                self.answers[answer.status_code] += 1
                if answer.is_success:
                    end.task = answer.json()
                    end.ids.add(end.task["task_id"])
                    return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _follow(self, end: End) -> None:
        """Read a job's events, from any server, each time from the last one on that arrived."""
        last, told = "", list[int]()
        while not end.final:
            with self._trying():
                address = f"{self._any_server()}/generate/{end.task['task_id']}/events"
                headers = {"Last-Event-ID": last}
                async with self._http.stream("GET", address, headers=headers) as answer:
                    self.answers[answer.status_code] += 1
                    fields: dict[str, str] = {}
                    async for line in answer.aiter_lines():
                        name, _, fields[name] = line.partition(": ")
                        if line or not fields.get("event"):
                            continue
                        data, last = json.loads(fields["data"]), fields["id"]
                        if fields["event"] == "joke":
                            told.append(data["index"])
                        elif fields["event"] == "state":
                            end.task = data
                            if data["state"] == State.PENDING:
                                told.clear()  # an attempt was lost, and its jokes with it
                        fields = {}
            await asyncio.sleep(0 if end.final else AGAIN_SECONDS)
        end.repeated = len(told) > len(set(told))

    def _any_server(self) -> str:
        return self._chance.choice(self._addresses)

    @contextmanager
    def _trying(self) -> Iterator[None]:
        """Go on after a connection that could not be had or broke."""
        try:
            yield
        except httpx2.TransportError:
            self.broken += 1


def prompt_of(seed: int) -> str:
    """Return a question that no other seed has; the stub engine only answers it."""
    return f"What is number {seed}?"


def count_of(seed: int) -> int:
    """Return how many jokes a seed's client asks for."""
    return 1 + seed % 2


def outline_of(task: dict[str, Any]) -> Any:
    """Return what is the same whoever is asked: ids of jokes are those of a server's own store."""
    jokes = [(joke["question"], joke["answer"], joke["seed"]) for joke in task["result"] or ()]
    return task["task_id"], task["state"], jokes
