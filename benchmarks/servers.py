"""Throughput of ASGI servers that run the application in two processes, in alternating rounds.

Each round starts every server over one Redis and requests ``/health/live``, a job (``POST
/generate`` with one idempotency key, so that jobs do not pile up) and streams up to their first
event, 32 at a time. The clients share the machine's cores with the servers.

    pip install granian && python benchmarks/servers.py --rounds 7
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

APP = "joker.web.app:open_app"
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "--factory", APP, "--workers=2", "--loop=asyncio", "--http=h11"],
    "uvicorn, uvloop and httptools": [
        *["-m", "uvicorn", "--factory", APP, "--workers=2", "--loop=uvloop", "--http=httptools"],
    ],
    "granian": [
        *["-m", "granian", "--factory", APP, "--workers=2", "--interface=asgi", "--no-ws"],
        *["--loop=uvloop", "--log-level=warning"],
    ],
}
QUIET = {"uvicorn": ["--no-access-log", "--log-level=warning"], "granian": ["--no-access-log"]}
CONCURRENCY = 32
BODY = json.dumps({"textprompt": "Why do cats"}).encode()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[None]:
    """Run a server within the context, which begins once its port accepts connections."""
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"did not start: {' '.join(command)}") from None
                time.sleep(0.05)
        time.sleep(1)
        yield
    finally:
        process.terminate()
        process.wait(60)


async def exchange(port: int, request: bytes, until: bytes, count: int) -> list[float]:
    """Send a request `count` times, `CONCURRENCY` at a time; return the durations in seconds.

    Connections are reused; a request with ``Connection: close`` is read up to `until`.
    """
    seconds: list[float] = []
    remaining = iter(range(count))
    closing = b"Connection: close" in request

    async def client() -> None:
        reader = writer = None
        for _ in remaining:
            if writer is None or reader is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 20"):
                raise SystemExit(head.decode())
            if closing:
                await reader.readuntil(until)
                writer.close()
                writer = None
            else:
                lines = head.lower().split(b"\r\n")
                length = next(line for line in lines if line.startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
            seconds.append(time.perf_counter() - began)
        if writer is not None:
            writer.close()

    await asyncio.gather(*(client() for _ in range(CONCURRENCY)))
    return seconds


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """Return the bytes of an HTTP request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def measure(port: int, count: int) -> dict[str, tuple[float, float]]:
    """Return requests per second and the 99th percentile in milliseconds of each operation."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = "Idempotency-Key: one"
    writer.write(request("POST", "/generate", BODY, key, "Connection: close"))
    job = json.loads((await reader.read()).split(b"\r\n\r\n", 1)[1])["task_id"]
    writer.close()
    operations = {
        "health": (request("GET", "/health/live"), count),
        "generate": (request("POST", "/generate", BODY, key), count // 4),
        "events": (request("GET", f"/generate/{job}/events", b"", "Connection: close"), count // 8),
    }
    figures = {}
    for name, (payload, times) in operations.items():
        await exchange(port, payload, b"event: state", CONCURRENCY)
        began = time.perf_counter()
        seconds = sorted(await exchange(port, payload, b"event: state", times))
        elapsed = time.perf_counter() - began
        figures[name] = times / elapsed, 1000 * seconds[int(0.99 * len(seconds))]
    return figures


def main() -> None:
    """Print a table of all servers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=4000, help="health checks per round")
    options = parser.parse_args()
    if shutil.which("redis-server") is None:
        raise SystemExit("redis-server is not installed")
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(options.rounds):
        for name, arguments in SERVERS.items():
            with tempfile.TemporaryDirectory() as folder:
                redis_port, port = free_port(), free_port()
                redis = ["redis-server", "--port", str(redis_port), "--dir", folder]
                command = [
                    *[sys.executable, *arguments, *QUIET[name.split(",")[0]]],
                    *["--host", "127.0.0.1", "--port", str(port)],
                ]
                with (
                    running([*redis, "--appendonly", "yes"], redis_port),
                    running(
                        command,
                        port,
                        JOKER_BROKER=f"redis://127.0.0.1:{redis_port}/0",
                        JOKER_DEADLINE_SECONDS="600",
                        JOKER_RATE_LIMIT="",
                    ),
                ):
                    for operation, figures in asyncio.run(measure(port, options.count)).items():
                        results.setdefault((operation, name), []).append(figures)
    print(f"| {CONCURRENCY} clients | server | requests/s (all rounds) | p99 ms |")
    print("|---|---|---|---|")
    for operation, name in sorted(results):
        rates, slowest = zip(*results[operation, name], strict=True)
        rounds = ", ".join(f"{rate:.0f}" for rate in rates)
        median = statistics.median(rates)
        print(
            f"| {operation} | {name} | {median:.0f} ({rounds}) | {statistics.median(slowest):.1f} |"
        )


if __name__ == "__main__":
    main()
