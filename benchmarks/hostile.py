"""Effect of denial-of-service attacks on the web server as it is deployed, on loopback.

Starts Redis and either the server of the image ``web-maintained`` (its command is read from
``deploy/Dockerfile``) or ``joker serve``. Each attack lasts a limited time with a limited number of
connections, while another client requests the joke of the day. Prints a table: how the hostile
connections ended, the latency of honest requests, and the server's memory and CPU time.

    python -m benchmarks.hostile --connections 10000 --joker-serve
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.servers import free_port, request, running

DOCKERFILE = Path(__file__).parents[1] / "deploy" / "Dockerfile"
HEADERS = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
MIB = 1 << 20
# Low enough that connections are accepted although the clients share the server's cores.
CONNECTIONS_PER_SECOND = 500
STREAMS_PER_SECOND = 80
FLOOD_BYTES = 32 * MIB


@dataclass
class Target:
    """The server under attack.

    Attributes:
        port: Its port.
        connections: Maximum number of hostile connections.
        seconds: Maximum duration of an attack after all connections are open.
        ends: Number of hostile connections by how they ended.
    """

    port: int
    connections: int
    seconds: float
    ends: Counter[str] = field(default_factory=Counter)

    async def attack(
        self, client: Callable[[Connection], Awaitable[str]], count: int, rate: int
    ) -> None:
        """Run clients concurrently, starting `rate` per second, and count how each ended."""
        count = min(count, self.connections)
        deadline = asyncio.get_running_loop().time() + count / rate + self.seconds

        async def act() -> None:
            try:
                async with asyncio.timeout_at(deadline):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.ends["not accepted"] += 1
                return
            connection = Connection(reader, writer)
            try:
                async with asyncio.timeout_at(deadline):
                    end = await client(connection)
            except TimeoutError:
                end = connection.state
            except OSError:
                end = "closed"
            self.ends[end] += 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(act())
                if number % 20 == 19:
                    await asyncio.sleep(20 / rate)


@dataclass
class Connection:
    """A hostile connection.

    Attributes:
        reader: Reads from the server.
        writer: Writes to the server.
        state: What to report on a timeout.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    state: str = "still open"

    async def answer(self) -> str:
        """Return the status of the response, or "closed" if there is none."""
        line = await self.reader.readline()
        return line.split()[1].decode() if line.startswith(b"HTTP/") else "closed"

    async def drip(self, piece: bytes) -> str:
        """Send a piece every second until there is a response; return its status."""

        async def send() -> None:
            while True:
                self.writer.write(piece)
                await asyncio.sleep(1)

        sending = asyncio.create_task(send())
        try:
            return await self.answer()
        finally:
            sending.cancel()

    async def flood(self, piece: bytes) -> str:
        """Send up to `FLOOD_BYTES` as fast as possible until there is a response."""

        async def send() -> None:
            for _ in range(FLOOD_BYTES // len(piece)):
                self.writer.write(piece)
                await self.writer.drain()

        sending = asyncio.create_task(send())
        answering = asyncio.create_task(self.answer())
        try:
            await asyncio.wait([sending, answering], return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not answering.done():
                await asyncio.wait([answering], timeout=1)
            finished = answering.done()
        finally:
            for task in (sending, answering):
                task.cancel()
            _, end = await asyncio.gather(sending, answering, return_exceptions=True)
        if not finished:
            return f"took {FLOOD_BYTES // MIB} MiB"
        return end if isinstance(end, str) else "closed"


async def idle(connection: Connection) -> str:
    """Send nothing."""
    return await connection.answer()


async def slow_headers(connection: Connection) -> str:
    """Send a header every second without end."""
    connection.writer.write(HEADERS)
    return await connection.drip(b"X-A: b\r\n")


async def slow_second_headers(connection: Connection) -> str:
    """Do the same with the second request of a connection."""
    connection.writer.write(HEADERS + b"\r\n" + HEADERS)
    await connection.reader.readuntil(b'{"status":"ok"}')
    return await connection.drip(b"X-A: b\r\n")


async def slow_body(connection: Connection) -> str:
    """Send a byte of the body every second."""
    connection.writer.write(POST + b"Content-Length: 1000\r\n\r\n{")
    return await connection.drip(b" ")


async def many_headers(connection: Connection) -> str:
    """Send a flood of headers."""
    connection.writer.write(HEADERS)
    return await connection.flood(b"".join(b"X-%d: %s\r\n" % (n, b"a" * 100) for n in range(600)))


async def long_header(connection: Connection) -> str:
    """Send one endless header."""
    connection.writer.write(HEADERS + b"X-A: ")
    return await connection.flood(b"a" * 65536)


async def giant_json(connection: Connection) -> str:
    """Announce and send a body of 1 GiB."""
    connection.writer.write(POST + b"Content-Length: 1073741824\r\n\r\n")
    return await connection.flood(b'["' + b"a" * 65532 + b'"]')


async def giant_chunked_json(connection: Connection) -> str:
    """Send an endless body in chunks."""
    connection.writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    return await connection.flood(b"10000\r\n" + b"[" * 65536 + b"\r\n")


async def nested_json(connection: Connection) -> str:
    """Send as many brackets as a body may contain."""
    connection.writer.write(POST + b"Content-Length: 16000\r\n\r\n" + b"[" * 16000)
    return await connection.answer()


async def deaf(connection: Connection) -> str:
    """Request the largest file a hundred times and read nothing."""
    connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
    path = b"GET /static/docs/redoc.standalone.js HTTP/1.1\r\nHost: x\r\n\r\n"
    connection.writer.write(path * 100)
    await asyncio.sleep(3600)
    return "closed"


def follow(path: str) -> Callable[[Connection], Awaitable[str]]:
    """Return a client that follows a job for which there is no worker."""

    async def client(connection: Connection) -> str:
        connection.writer.write(request("GET", f"{path}/events"))
        status = await connection.answer()
        if status == "200":
            connection.state = "following"
            await connection.reader.read(-1)
            return "read to the end"
        return status

    return client


ATTACKS: dict[str, tuple[Callable[[Connection], Awaitable[str]], int]] = {
    "connections that say nothing": (idle, 10_000),
    "slow headers": (slow_headers, 2000),
    "slow headers, second request": (slow_second_headers, 2000),
    "slow bodies": (slow_body, 10_000),
    "endless headers": (many_headers, 8),
    "one endless header": (long_header, 8),
    "body of 1 GiB": (giant_json, 8),
    "endless body in chunks": (giant_chunked_json, 8),
    "nested JSON": (nested_json, 200),
    "clients that do not read": (deaf, 200),
}


async def probe(port: int, seconds: list[float]) -> None:
    """Request the joke of the day ten times a second, on a new connection each time."""
    while True:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(30):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request("GET", "/jokes/today", b"", "Connection: close"))
                response = await reader.read(-1)
                writer.close()
            assert response.startswith(b"HTTP/1.1 200")
            seconds.append(time.perf_counter() - began)
        except (OSError, AssertionError):
            seconds.append(float("inf"))
        await asyncio.sleep(0.1)


def memory_mib(root: int) -> float:
    """Return the resident memory of a process and its descendants."""
    total = 0
    for process in (root, *descendants(root)):
        with suppress(OSError):
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
            total += pages * resource.getpagesize()
    return total / MIB


def cpu_seconds(root: int) -> float:
    """Return the user and system CPU time of a process and its descendants."""
    ticks = 0
    for process in (root, *descendants(root)):
        with suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def descendants(process: int) -> Iterator[int]:
    """Yield all descendants of a process."""
    with suppress(OSError):
        for name in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield int(name)
            yield from descendants(int(name))


async def measure(target: Target, name: str, root: int, rate: int = CONNECTIONS_PER_SECOND) -> None:
    """Run an attack and print its row."""
    client, count = ATTACKS[name]
    before, cpu_start = memory_mib(root), cpu_seconds(root)
    seconds: list[float] = []
    probing = asyncio.create_task(probe(target.port, seconds))
    began = time.monotonic()
    peak = before

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, memory_mib(root))
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    await target.attack(client, count, rate)
    lasted = time.monotonic() - began
    probing.cancel()
    watching.cancel()
    await asyncio.gather(probing, watching, return_exceptions=True)
    ends = ", ".join(f"{number} {end}" for end, number in target.ends.most_common())
    target.ends.clear()
    ordered = sorted(seconds) or [float("nan")]
    p99 = ordered[math.ceil(0.99 * (len(ordered) - 1))]
    print(
        f"| {name} | {ends} | {lasted:.0f} s | {statistics.median(ordered) * 1000:.0f} ms, "
        f"{p99 * 1000:.0f} ms of {len(seconds)} | {before:.0f} → {peak:.0f} MiB | "
        f"{100 * (cpu_seconds(root) - cpu_start) / lasted:.0f} % |",
        flush=True,
    )


async def run(port: int, connections: int, seconds: float, root: int, only: str) -> None:
    """Print the table."""
    print("| attack | connections ended | lasted | `/jokes/today`, median, p99 | memory | CPU |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in [name for name in ATTACKS if re.search(only, name)]:
        await measure(Target(port, connections, seconds), name, root)
    if not re.search(only, "streams"):
        return
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("POST", "/generate", b"{}"))
    head = await reader.readuntil(b"\r\n\r\n")
    location = re.search(rb"(?i)\nlocation: (\S+)", head)
    if location is None:
        raise SystemExit(head.decode())
    writer.close()
    name = f"{connections} streams of a job that waits"
    ATTACKS[name] = (follow(location[1].decode()), connections)
    await measure(Target(port, connections, seconds), name, root, STREAMS_PER_SECOND)


@contextmanager
def serving(extra: list[str], *, joker_serve: bool) -> Iterator[tuple[int, int]]:
    """Run Redis and the server; yield the server's port and process id."""
    image = DOCKERFILE.read_text().replace("\\\n", "").replace("/etc/joker", str(DOCKERFILE.parent))
    command = json.loads(re.search(r'CMD (\["uvicorn".*?\])', image)[1])  # type: ignore[index]
    if joker_serve:
        command = ["joker", "serve"]
    port, redis_port = free_port(), free_port()
    command = [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port), *extra]
    with tempfile.TemporaryDirectory() as folder:
        redis = ["redis-server", "--port", str(redis_port), "--dir", folder, "--save", ""]
        broker = f"redis://127.0.0.1:{redis_port}/0"
        with (
            running(redis, redis_port),
            running(
                command,
                port,
                JOKER_BROKER=broker,
                JOKER_DATABASE=f"sqlite:///{folder}/jokes.sqlite",
                JOKER_RATE_LIMIT="",
                JOKER_DEADLINE_SECONDS="900",
            ),
        ):
            yield port, next(pid for pid in descendants(os.getpid()) if is_server(pid))


def is_server(process: int) -> bool:
    """Return whether a process was started as the server."""
    line = Path(f"/proc/{process}/cmdline").read_bytes()
    return b"uvicorn" in line or b"serve\0" in line


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--connections", type=int, default=10_000, help="maximum number of connections"
    )
    parser.add_argument("--seconds", type=float, default=20, help="how long an attack lasts")
    parser.add_argument("--only", default="", help="attacks to run, as a regular expression")
    parser.add_argument("--joker-serve", action="store_true", help="attack 'joker serve'")
    parser.add_argument("server", nargs="*", help="additional options of the server")
    options = parser.parse_args()
    max_connections = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200
    with serving(options.server, joker_serve=options.joker_serve) as (port, root):
        connections = min(options.connections, max_connections)
        asyncio.run(run(port, connections, options.seconds, root, options.only))


if __name__ == "__main__":
    main()
