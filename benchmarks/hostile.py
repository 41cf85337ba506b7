"""What hostile clients do to the web server as it is deployed, on loopback.

Starts Redis and the server of the image ``web-maintained`` (its command is read from
``deploy/Dockerfile``) or ``joker serve``, attacks it in one way after another, each for a bounded
time with a bounded number of connections, and asks for the joke of the day all the while. Prints a
table: what became of the hostile connections, how long honest requests took, and the memory and
CPU time of the server's processes.

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
# The listen queue is short, the clients share the server's cores, and beginning a stream is work.
CONNECTIONS_A_SECOND = 500
STREAMS_A_SECOND = 80
# A client that floods gives up after so much.
FLOOD_BYTES = 32 * MIB


@dataclass
class Target:
    """The server under attack.

    Attributes:
        port: Where it listens.
        connections: How many hostile connections are opened at most.
        seconds: How long an attack that is not fended off goes on once all are connected.
        ends: What became of each hostile connection.
    """

    port: int
    connections: int
    seconds: float
    ends: Counter[str] = field(default_factory=Counter)

    async def attack(
        self, client: Callable[[Connection], Awaitable[str]], count: int, rate: int
    ) -> None:
        """Let so many clients act at once, and count what each reports."""
        count = min(count, self.connections)
        until = asyncio.get_running_loop().time() + count / rate + self.seconds

        async def act() -> None:
            try:
                async with asyncio.timeout_at(until):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.ends["not accepted"] += 1
                return
            connection = Connection(reader, writer)
            try:
                async with asyncio.timeout_at(until):
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
        reader: What the server sends.
        writer: What it receives.
        state: What to report if nothing else happens.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    state: str = "still open"

    async def answer(self) -> str:
        """Return the status of the answer, or that the connection was closed without one."""
        line = await self.reader.readline()
        return line.split()[1].decode() if line.startswith(b"HTTP/") else "closed"

    async def drip(self, piece: bytes) -> str:
        """Send a piece every second until an answer comes."""

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
        """Send as fast as the server takes it, until it answers or enough was sent."""

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
    """Say nothing."""
    return await connection.answer()


async def slow_headers(connection: Connection) -> str:
    """Send a header a second and never the last."""
    connection.writer.write(HEADERS)
    return await connection.drip(b"X-A: b\r\n")


async def slow_second_headers(connection: Connection) -> str:
    """The same with the second request of a connection."""
    connection.writer.write(HEADERS + b"\r\n" + HEADERS)
    await connection.reader.readuntil(b'{"status":"ok"}')
    return await connection.drip(b"X-A: b\r\n")


async def slow_body(connection: Connection) -> str:
    """Send a byte of the body a second."""
    connection.writer.write(POST + b"Content-Length: 1000\r\n\r\n{")
    return await connection.drip(b" ")


async def many_headers(connection: Connection) -> str:
    """Send a flood of headers."""
    connection.writer.write(HEADERS)
    return await connection.flood(b"".join(b"X-%d: %s\r\n" % (n, b"a" * 100) for n in range(600)))


async def long_header(connection: Connection) -> str:
    """Send one header without an end."""
    connection.writer.write(HEADERS + b"X-A: ")
    return await connection.flood(b"a" * 65536)


async def giant_json(connection: Connection) -> str:
    """Announce a body of a gigabyte."""
    connection.writer.write(POST + b"Content-Length: 1073741824\r\n\r\n")
    return await connection.flood(b'["' + b"a" * 65532 + b'"]')


async def giant_chunked_json(connection: Connection) -> str:
    """Send a body without an end in chunks."""
    connection.writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    return await connection.flood(b"10000\r\n" + b"[" * 65536 + b"\r\n")


async def nested_json(connection: Connection) -> str:
    """Send as many brackets as a body may hold."""
    connection.writer.write(POST + b"Content-Length: 16000\r\n\r\n" + b"[" * 16000)
    return await connection.answer()


async def deaf(connection: Connection) -> str:
    """Ask for the largest file a hundred times and read nothing."""
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
            return "heard the end"
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


async def ask_meanwhile(port: int, seconds: list[float]) -> None:
    """Ask for the joke of the day ten times a second, on a new connection each time."""
    while True:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(30):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request("GET", "/jokes/today", b"", "Connection: close"))
                answer = await reader.read(-1)
                writer.close()
            assert answer.startswith(b"HTTP/1.1 200")
            seconds.append(time.perf_counter() - began)
        except (OSError, AssertionError):
            seconds.append(float("inf"))
        await asyncio.sleep(0.1)


def memory_mib(root: int) -> float:
    """Return the resident memory of a process and all below it."""
    total = 0
    for process in (root, *children(root)):
        with suppress(OSError):
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
            total += pages * resource.getpagesize()
    return total / MIB


def cpu_seconds(root: int) -> float:
    """Return the CPU time of a process and all below it, in user and system mode."""
    ticks = 0
    for process in (root, *children(root)):
        with suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def children(process: int) -> Iterator[int]:
    """Yield all processes below one."""
    with suppress(OSError):
        for name in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield int(name)
            yield from children(int(name))


async def measure(target: Target, name: str, root: int, rate: int = CONNECTIONS_A_SECOND) -> None:
    """Attack in one way and print a row."""
    client, count = ATTACKS[name]
    before, worked = memory_mib(root), cpu_seconds(root)
    seconds: list[float] = []
    asking = asyncio.create_task(ask_meanwhile(target.port, seconds))
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
    asking.cancel()
    watching.cancel()
    await asyncio.gather(asking, watching, return_exceptions=True)
    ends = ", ".join(f"{number} {end}" for end, number in target.ends.most_common())
    target.ends.clear()
    ordered = sorted(seconds) or [float("nan")]
    p99 = ordered[math.ceil(0.99 * (len(ordered) - 1))]
    print(
        f"| {name} | {ends} | {lasted:.0f} s | {statistics.median(ordered) * 1000:.0f} ms, "
        f"{p99 * 1000:.0f} ms of {len(seconds)} | {before:.0f} → {peak:.0f} MiB | "
        f"{100 * (cpu_seconds(root) - worked) / lasted:.0f} % |",
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
    await measure(Target(port, connections, seconds), name, root, STREAMS_A_SECOND)


@contextmanager
def serving(extra: list[str], *, joker_serve: bool) -> Iterator[tuple[int, int]]:
    """Run Redis and the server; give its port and process."""
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
            yield port, next(pid for pid in children(os.getpid()) if is_server(pid))


def is_server(process: int) -> bool:
    """Return whether a process was started as the server."""
    line = Path(f"/proc/{process}/cmdline").read_bytes()
    return b"uvicorn" in line or b"serve\0" in line


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=10_000, help="most at once")
    parser.add_argument("--seconds", type=float, default=20, help="how long an attack lasts")
    parser.add_argument("--only", default="", help="attacks to run, as a regular expression")
    parser.add_argument("--joker-serve", action="store_true", help="attack 'joker serve'")
    parser.add_argument("server", nargs="*", help="further options of the server")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200
    with serving(options.server, joker_serve=options.joker_serve) as (port, root):
        connections = min(options.connections, most)
        asyncio.run(run(port, connections, options.seconds, root, options.only))


if __name__ == "__main__":
    main()
