"""How long the API takes under load: from `POST /generate` to the jokes, and the health check.

    python benchmarks/api_latency.py --clients 1 8 64 --seconds 30

Starts `joker serve` as a process of its own, with whatever `JOKER_…` the environment sets
(`JOKER_BROKER` has workers tell the jokes). Each client asks for its next joke once it has the
last one; beside them one asks for `/health/live` twenty times a second. Clients share the
machine's cores with the server, as nothing else should. Prints a line for each number of clients.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import numpy as np

PATIENCE_SECONDS = 600
PROBE_PAUSE_SECONDS = 0.05
SERVER = {
    "JOKER_MAX_QUEUE_SIZE": "1000",
    "JOKER_DEADLINE_SECONDS": str(PATIENCE_SECONDS),
    "JOKER_MAX_WAIT_SECONDS": str(PATIENCE_SECONDS),
    "JOKER_RATE_LIMIT": "",
}


def main() -> None:
    """Load a server with ever more clients and print a line for each number of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=30, help="of load for each number")
    parser.add_argument("--candidates", type=int, help="of each joke; by default the server's")
    options = parser.parse_args()
    body = {} if options.candidates is None else {"candidates": options.candidates}
    print(f"{'POST to jokes, ms':>47} {'GET /health/live, ms':>21}")
    print(f"{'clients':>8} {'jokes/s':>9} {'failed':>8}" + f" {'p50':>9} {'p99':>9} " * 2)
    with serve() as address:
        asyncio.run(load(address, 1, 2.0, body))  # the first jokes are slower
        for clients in options.clients:
            figures = asyncio.run(load(address, clients, options.seconds, body))
            print(f"{clients:8} {figures}", flush=True)


@contextmanager
def serve() -> Iterator[str]:
    """Run a server on a free port and give its address."""
    command = [sys.executable, "-m", "joker", "serve", "--port", "0"]
    environment = os.environ | SERVER
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        if not line.startswith("Open "):
            sys.exit(line + process.stderr.read())
        # A pipe that is full would stop it.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield line.split()[1]
        finally:
            process.terminate()
            process.wait()


async def load(address: str, clients: int, seconds: float, body: dict[str, int]) -> str:
    """Let so many clients ask for jokes; return the figures of a line."""
    until = time.perf_counter() + seconds
    failed = 0
    waits: list[float] = []
    probes: list[float] = []

    async def ask() -> None:
        nonlocal failed
        headers = {"Prefer": f"wait={PATIENCE_SECONDS}"}
        async with httpx2.AsyncClient(base_url=address, timeout=PATIENCE_SECONDS) as client:
            while (begun := time.perf_counter()) < until:
                answer = await client.post("/generate", json=body, headers=headers)
                answer.raise_for_status()
                if answer.json()["state"] == "SUCCESS":
                    waits.append(time.perf_counter() - begun)
                else:
                    failed += 1

    async def probe() -> None:
        async with httpx2.AsyncClient(base_url=address, timeout=PATIENCE_SECONDS) as client:
            while (begun := time.perf_counter()) < until:
                (await client.get("/health/live")).raise_for_status()
                probes.append(time.perf_counter() - begun)
                await asyncio.sleep(PROBE_PAUSE_SECONDS)

    begun = time.perf_counter()
    await asyncio.gather(probe(), *(ask() for _ in range(clients)))
    rate = len(waits) / (time.perf_counter() - begun)
    return f"{rate:9.1f} {failed:8}{describe(waits)}{describe(probes)}"


def describe(seconds: list[float]) -> str:
    """Return the median and the 99th percentile in milliseconds."""
    median, slow = 1000 * np.percentile(seconds, [50, 99])
    return f" {median:9.1f} {slow:9.1f} "


if __name__ == "__main__":
    main()
