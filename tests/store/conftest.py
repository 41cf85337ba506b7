from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import joker.store
from deploy.stack import POSTGRES
from joker.store import IN_MEMORY, Store, tables
from tests.store.postgres import PostgresServer


@dataclass(frozen=True)
class Backend:
    """A database for one test.

    Attributes:
        url: Its address; empty at first.
        shared: Whether several processes see the same.
        interrupt: Makes it impossible to write there, or to open it.
        restore: Makes it usable again, with what was in it.
    """

    url: str
    shared: bool
    interrupt: Callable[[], None]
    restore: Callable[[], None]


def _refuse() -> None:
    pytest.skip("a database in memory is never away")


def _sqlite_file(folder: Path) -> Backend:
    path = folder / "jokes.sqlite"
    blockers = []

    def interrupt() -> None:
        blockers.append(sqlite3.connect(path, isolation_level=None))
        blockers[-1].execute("BEGIN EXCLUSIVE")

    def restore() -> None:
        blockers[-1].close()

    return Backend(f"sqlite:///{path}", True, interrupt, restore)


@pytest.fixture(scope="session")
def postgres(require: Callable[[str], None]) -> Iterator[PostgresServer]:
    """Return a running PostgreSQL; whoever stops it starts it again."""
    if POSTGRES is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("PostgreSQL is not installed")
    require("psycopg")
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(
    params=["file", "memory", pytest.param("postgresql", marks=pytest.mark.integration)]
)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Return each database in turn that a store may be in."""
    if request.param == "file":
        return _sqlite_file(tmp_path)
    if request.param == "memory":
        return Backend(IN_MEMORY, False, _refuse, _refuse)
    server: PostgresServer = request.getfixturevalue("postgres")
    return Backend(server.new_database(), True, server.stop, server.start)


@pytest.fixture
def shared(backend: Backend) -> Backend:
    """Return each database in turn that several processes may use."""
    if not backend.shared:
        pytest.skip("each process has a memory of its own")
    return backend


OpenStore = Callable[..., Store]


@pytest.fixture
def make_store() -> Iterator[OpenStore]:
    """Return ``make_store(database, **options)``, which opens a store that is closed in the end."""
    stores = []

    def make(*arguments: Any, **options: Any) -> Store:
        stores.append(Store(*arguments, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def open_store(backend: Backend, make_store: OpenStore) -> OpenStore:
    """Return ``open_store(**options)``, which opens a store in the database of this test."""
    return partial(make_store, backend.url)


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


class Clock:
    """Stands in for the store's `time`; a test moves it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (joker.store, tables):
        monkeypatch.setattr(module, "time", clock)
    return clock
