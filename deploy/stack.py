"""Runs the services of the Compose file as local processes: `make stack`.

These are a web server with two processes, two workers, a Redis configured as in Compose, and a
PostgreSQL if one is installed. Processes that exit are restarted; Ctrl-C stops them all after
running jobs have finished. Their output goes to standard error, prefixed with their names; their
data goes to temporary folders. Once the stack is ready, it prints one JSON line to standard output
with its address, its PostgreSQL's URL and its process ids.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
READY_SECONDS = 120
# Longer than a job's deadline; the same as stop_grace_period in docker-compose.yml.
STOP_SECONDS = 75
# The options in the Dockerfile.
UVICORN = ["--factory", "joker.web.app:open_app", "--http", "joker.web.server:Connection"]
UVICORN += ["--workers", "2", "--no-access-log", "--no-server-header"]
UVICORN += ["--log-config", str(HERE / "uvicorn-logging.json")]
UVICORN += ["--timeout-worker-healthcheck", "30", "--timeout-graceful-shutdown", "65"]

# Debian does not put PostgreSQL's programs on the PATH.
POSTGRES = max(
    Path("/usr/lib/postgresql").glob("[0-9]*/bin"),
    default=None,
    key=lambda path: float(path.parent.name),
)


class Stack:
    """The processes, started in order and stopped in reverse order.

    Attributes:
        environment: Environment variables of processes that are started from now on.
        database: URL of the stack's own PostgreSQL.
        processes: The processes by name.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = os.environ | environment
        self.database: str | None = None
        self._commands: dict[str, tuple[list[str], dict[str, Any]]] = {}
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, command: list[str], user: dict[str, Any] | None = None) -> None:
        """Start a process and forward its output.

        Args:
            name: Its name in the output; the prefix decides the order in `stop`.
            command: The command line.
            user: Options of `subprocess.Popen` that set its user.
        """
        process = subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C in a terminal must not reach the process: `stop` stops them in order.
            start_new_session=True,
            **(user or {}),
        )
        self._commands[name] = command, user or {}
        self.processes[name] = process
        threading.Thread(target=_forward_output, args=(name, process), daemon=True).start()

    def restart_ended(self) -> None:
        """Restart processes that have exited."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                print(f"stack: {name} exited and is restarted", file=sys.stderr)
                self.start(name, *self._commands[name])

    def stop(self) -> None:
        """Stop the web server, then the workers, then the databases, and wait for each kind."""
        for kind in ("web", "worker", "redis", "postgres"):
            processes = [p for name, p in self.processes.items() if name.startswith(kind)]
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def main() -> int:
    """Run the stack until a signal arrives; return the exit code."""
    parser = argparse.ArgumentParser(
        description="Run the services of the Compose file as local processes."
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port of the web server (default: a free one)"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="number of worker processes (default: 2)"
    )
    options = parser.parse_args()
    if shutil.which("redis-server") is None:
        print("stack: redis-server is not installed; 'make system' installs it", file=sys.stderr)
        return 2
    # Shells start background jobs with SIGINT ignored.
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory(prefix="joker-stack-") as stack_folder,
        tempfile.TemporaryDirectory(prefix="joker-postgres-") as postgres_folder,
    ):
        folder, port, redis_port = Path(stack_folder), options.port or _free_port(), _free_port()
        stack = Stack(_write_settings(folder, redis_port))
        try:
            stack.start("redis", ["redis-server", str(folder / "redis.conf")])
            _wait_for(redis_port)
            store = _start_postgres(stack, Path(postgres_folder))
            print(f"stack: jokes and votes go to {store}", file=sys.stderr)
            _start_others(stack, port, options.workers)
            return _watch(stack, f"http://127.0.0.1:{port}")
        except KeyboardInterrupt:
            return 0
        finally:
            # A second Ctrl-C must not leave processes behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            stack.stop()


def _write_settings(folder: Path, redis_port: int) -> dict[str, str]:
    """Generate a password, write Redis's configuration, and return the services' environment."""
    secret_folder = folder / "secrets"
    secret_folder.mkdir()
    (folder / "redis").mkdir()
    password = secrets.token_hex(24)
    (secret_folder / "joker_broker_password").write_text(password, encoding="utf-8")
    (folder / "redis.conf").write_text(
        f"include {HERE / 'kubernetes' / 'redis.conf'}\n"
        f"bind 127.0.0.1\nport {redis_port}\ndir {folder / 'redis'}\nrequirepass {password}\n",
        encoding="utf-8",
    )
    return {
        "JOKER_BROKER": f"redis://127.0.0.1:{redis_port}/0",
        "JOKER_SECRETS_DIR": str(secret_folder),
    }


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)


def initialize_postgres(folder: Path) -> dict[str, Any]:
    """Create a PostgreSQL cluster for the user joker in a folder.

    Returns:
        Options of `subprocess.Popen` that start PostgreSQL as the folder's owner, since it refuses
        to run as root.
    """
    assert POSTGRES is not None
    user: dict[str, Any] = {"cwd": folder}
    if os.getuid() == 0:
        user |= {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(folder, "nobody", "nogroup")
    subprocess.run(
        [
            *(POSTGRES / "initdb", "--pgdata", folder / "data", "--username", "joker"),
            *("--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        **user,
    )
    return user


def _start_postgres(stack: Stack, folder: Path) -> str:
    """Start a PostgreSQL for the web server unless it has a database; return where jokes go."""
    if stack.environment.get("JOKER_DATABASE"):
        return "JOKER_DATABASE"
    if POSTGRES is None:
        return "your own SQLite store, because PostgreSQL is not installed"
    if importlib.util.find_spec("psycopg") is None:
        return "your own SQLite store, because psycopg is not installed"
    user = initialize_postgres(folder)
    # A Unix socket in a private folder needs neither password nor port.
    command = [str(POSTGRES / "postgres"), "-D", str(folder / "data"), "-k", str(folder), "-h", ""]
    stack.start("postgres", command, user)
    deadline = time.monotonic() + READY_SECONDS
    is_ready = [str(POSTGRES / "pg_isready"), "--quiet", "--host", str(folder), "-U", "joker"]
    while subprocess.run(is_ready, check=False).returncode:
        if time.monotonic() > deadline:
            raise SystemExit(f"PostgreSQL did not answer within {READY_SECONDS} seconds")
        time.sleep(0.05)
    stack.database = f"postgresql://joker@/postgres?host={folder}"
    stack.environment["JOKER_DATABASE"] = stack.database
    return "a PostgreSQL that is deleted with the stack"


def _start_others(stack: Stack, port: int, workers: int) -> None:
    for number in range(1, workers + 1):
        stack.start(f"worker-{number}", [sys.executable, "-m", "joker", "worker"])
    stack.start("web", [sys.executable, "-m", "uvicorn", "--port", str(port), *UVICORN])


def _watch(stack: Stack, address: str) -> int:
    """Print the address once the stack is ready, then restart processes that exit, forever."""
    deadline = time.monotonic() + READY_SECONDS
    while not _is_ready(address):
        if time.monotonic() > deadline:
            print(f"stack: not ready after {READY_SECONDS} seconds", file=sys.stderr)
            return 1
        time.sleep(0.5)
    pids = {name: process.pid for name, process in stack.processes.items()}
    ready = {"address": address, "database": stack.database, "pids": pids}
    print(json.dumps(ready), flush=True)
    print(f"Open {address} (Ctrl-C stops)", file=sys.stderr)
    while True:
        time.sleep(0.5)
        stack.restart_ended()


def _forward_output(name: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{name:9}| {line}", end="", file=sys.stderr, flush=True)


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health/ready", timeout=15) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
