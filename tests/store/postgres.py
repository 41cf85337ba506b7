"""A PostgreSQL of the tests' own, from the system's package."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from deploy.stack import POSTGRES, initialize_postgres


class PostgresServer:
    """A PostgreSQL on a free port; what is in it outlives a stop and start."""

    def __init__(self) -> None:
        # PostgreSQL does not run as root, and pytest's folders are root's alone.
        self._folder = Path(tempfile.mkdtemp(prefix="joker-postgres-"))
        self._user = initialize_postgres(self._folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._databases = 0
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        import psycopg

        assert POSTGRES is not None
        self._process = subprocess.Popen(
            [
                *(POSTGRES / "postgres", "-D", self._folder / "data", "-k", self._folder),
                *("-h", "127.0.0.1", "-p", str(self._port)),
                *("-c", "fsync=off", "-c", "max_connections=100"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._user,
        )
        until = time.monotonic() + 60
        while True:
            try:
                self._run("SELECT 1")
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, "PostgreSQL does not answer"
                assert self._process.poll() is None, "PostgreSQL did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(60)

    def remove(self) -> None:
        """Stop it and delete everything."""
        self.stop()
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """Create an empty database and return its address."""
        self._databases += 1
        name = f"test_{self._databases}"
        self._run(f"CREATE DATABASE {name}")
        return f"postgresql://joker:secret-word@127.0.0.1:{self._port}/{name}"

    def _run(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(
            f"postgresql://joker@127.0.0.1:{self._port}/postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())
