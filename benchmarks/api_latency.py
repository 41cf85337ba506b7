"""Latency of the API under load: from `POST /generate` to the joke, and of the health check.

    python benchmarks/api_latency.py --clients 1 8 64 --seconds 30

Starts `joker serve` with the environment's `JOKER_…` variables (`JOKER_BROKER` has workers tell the
jokes). Each client requests its next joke once it has the last one, while another client polls
`/health/live` twenty times a second. The clients share the machine's cores with the server; nothing
else should run. Prints a line for each number of clients.
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

TIMEOUT_SECONDS = 600
PROBE_INTERVAL_SECONDS = 0.05
SERVER = {
    "JOKER_MAX_QUEUE_SIZE": "1000",
    "JOKER_DEADLINE_SECONDS": str(TIMEOUT_SECONDS),
    "JOKER_MAX_WAIT_SECONDS": str(TIMEOUT_SECONDS),
    "JOKER_RATE_LIMIT": "",
}


def main() -> None:
    """Print a line for each number of clients."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=30, help="duration of each measurement")
    parser.add_argument(
        "--candidates", type=int, help="candidates per joke (default: the server's)"
    )
    options = parser.parse_args()
    body = {} if options.candidates is None else {"candidates": options.candidates}
    print(f"{'POST to jokes, ms':>47} {'GET /health/live, ms':>21}")
    print(f"{'clients':>8} {'jokes/s':>9} {'failed':>8}" + f" {'p50':>9} {'p99':>9} " * 2)
    with serve() as address:
        asyncio.run(load(address, 1, 2.0, body))  # warm-up
        for clients in options.clients:
            figures = asyncio.run(load(address, clients, options.seconds, body))
            print(f"{clients:8} {figures}", flush=True)


@contextmanager
def serve() -> Iterator[str]:
    """Run a server on a free port and yield its address."""
    command = [sys.executable, "-m", "joker", "serve", "--port", "0"]
    environment = os.environ | SERVER
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        if not line.startswith("Open "):
            sys.exit(line + process.stderr.read())
        # Drain the pipe: the server would block on a full one.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield line.split()[1]
        finally:
            process.terminate()
            process.wait()


async def load(address: str, clients: int, seconds: float, body: dict[str, int]) -> str:
    """Let clients request jokes; return the columns of a line."""
    end = time.perf_counter() + seconds
    failed = 0
    waits: list[float] = []
    probes: list[float] = []

    async def request_jokes() -> None:
        nonlocal failed
        headers = {"Prefer": f"wait={TIMEOUT_SECONDS}"}
        async with httpx2.AsyncClient(base_url=address, timeout=TIMEOUT_SECONDS) as client:
            while (began := time.perf_counter()) < end:
                response = await client.post("/generate", json=body, headers=headers)
                response.raise_for_status()
                if response.json()["state"] == "SUCCESS":
                    waits.append(time.perf_counter() - began)
                else:
                    failed += 1

    async def probe() -> None:
        async with httpx2.AsyncClient(base_url=address, timeout=TIMEOUT_SECONDS) as client:
            while (began := time.perf_counter()) < end:
                (await client.get("/health/live")).raise_for_status()
                probes.append(time.perf_counter() - began)
                await asyncio.sleep(PROBE_INTERVAL_SECONDS)

    began = time.perf_counter()
    await asyncio.gather(probe(), *(request_jokes() for _ in range(clients)))
    rate = len(waits) / (time.perf_counter() - began)
    return f"{rate:9.1f} {failed:8}{describe(waits)}{describe(probes)}"


def describe(seconds: list[float]) -> str:
    """Return the median and the 99th percentile in milliseconds."""
    median, slow = 1000 * np.percentile(seconds, [50, 99])
    return f" {median:9.1f} {slow:9.1f} "


if __name__ == "__main__":
    main()
