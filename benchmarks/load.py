"""A load generator: clients that request one joke after another, and their measurements.

`benchmarks.original` uses it for our server and for the original's stack.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joker.jobs.job import State

MAX_NEW_TOKENS = 40
POLL_SECONDS = 0.5
FAST_POLL_SECONDS = 0.1
WAIT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement.

    Attributes:
        jokes: Jokes per second.
        tokens: Tokens of these jokes per second.
        cpu_seconds: CPU time per joke.
        drafts: Drafts per joke.
        failed: Number of requests without a joke.
    """

    jokes: float
    tokens: float
    cpu_seconds: float
    drafts: float = 1.0
    failed: int = 0


Told = tuple[int, int]
"""Tokens of a joke, and the drafts that it took."""

Ask = Callable[["Client", str], Coroutine[Any, Any, Told | None]]


@dataclass(frozen=True, slots=True)
class Times:
    """Duration of each measurement and of its warm-up, in seconds."""

    warm_up: float
    measured: float


class Client:
    """A minimal HTTP client on one connection, so that clients use little CPU."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, body: Any = None, *headers: str) -> Any:
        """Send a request; return the decoded body of the response.

        Raises:
            RuntimeError: If the status is not 200 or 202.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}", "", ""]
        writer.write("\r\n".join(lines).encode() + content)
        head = await reader.readuntil(b"\r\n\r\n")
        fields = head.decode().lower().split("\r\n")
        size = next(line for line in fields if line.startswith("content-length"))
        answer = await reader.readexactly(int(size.partition(":")[2]))
        if fields[0].split()[1] not in ("200", "202"):
            raise RuntimeError(answer.decode())
        return json.loads(answer)

    def close(self) -> None:
        """Close the connection."""
        if self._streams:
            self._streams[1].close()


async def ask_original(client: Client, prompt: str) -> Told | None:
    """Request a joke from the original's stack, polling as its page does."""
    task = await client.send("POST", "/generate", {"prompt": prompt})
    while True:
        await asyncio.sleep(POLL_SECONDS)
        task_state = await client.send("GET", f"/result/{task['task_id']}")
        if task_state["state"] in ("SUCCESS", "FAILURE"):
            result = task_state["result"]
            return (int(result["tokens"]), 1) if result else None


async def ask_ours(client: Client, prompt: str) -> Told | None:
    """Request a joke from our server."""
    body = {"prompt": prompt, "max_new_tokens": MAX_NEW_TOKENS, "temperature": 1.0}
    return _read_task(await client.send("POST", "/generate", body, f"Prefer: wait={WAIT_SECONDS}"))


async def poll_ours(client: Client, prompt: str) -> Told | None:
    """Request a joke from our server, polling ten times a second."""
    body = {"prompt": prompt, "max_new_tokens": MAX_NEW_TOKENS, "temperature": 1.0}
    task = await client.send("POST", "/generate", body)
    while not State(task["state"]).final:
        await asyncio.sleep(FAST_POLL_SECONDS)
        task = await client.send("GET", f"/generate/{task['task_id']}")
    return _read_task(task)


def _read_task(task: dict[str, Any]) -> Told | None:
    if task["state"] != "SUCCESS":
        return None
    (joke,) = task["result"]
    return int(joke["tokens"]), int(joke["attempts"])


async def load(
    port: int,
    prompts: tuple[str, ...],
    clients: int,
    times: Times,
    ask: Ask,
    processes: list[int],
) -> Measurement:
    """Run clients that request one joke after another; count the jokes after the warm-up."""
    told: list[Told] = []
    failed = 0
    counting = False

    async def run(number: int) -> None:
        nonlocal failed
        client = Client(port)
        try:
            for prompt in itertools.cycle(prompts[number % len(prompts) :] + prompts):
                joke = await ask(client, prompt)
                if counting and joke:
                    told.append(joke)
                elif counting:
                    failed += 1
        finally:
            client.close()

    running = [asyncio.ensure_future(run(number)) for number in range(clients)]
    await asyncio.wait(running, timeout=times.warm_up, return_when=asyncio.FIRST_EXCEPTION)
    counting, cpu_start = True, cpu_seconds(processes)
    await asyncio.wait(running, timeout=times.measured, return_when=asyncio.FIRST_EXCEPTION)
    counting, cpu = False, cpu_seconds(processes) - cpu_start
    for task in running:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    if not told:
        return Measurement(0.0, 0.0, math.nan, math.nan, failed)
    tokens, drafts = (sum(column) for column in zip(*told, strict=True))
    seconds, jokes = times.measured, len(told)
    return Measurement(jokes / seconds, tokens / seconds, cpu / jokes, drafts / jokes, failed)


def cpu_seconds(processes: list[int]) -> float:
    """Return the CPU time of session leaders and of all processes in their sessions."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            # The name may contain spaces; session, user and system time are fields 6, 14 and 15.
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) in processes:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def first(port: int, prompt: str, ask: Ask) -> None:
    """Request one joke, so that the model is loaded before the measurement."""
    client = Client(port)
    await ask(client, prompt)
    client.close()
