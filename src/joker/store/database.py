"""The database behind a store: URL, connections, migrations, locks and outages.

Every query runs inside `Database.begin`, the one place where SQLAlchemy's exceptions become a
`StoreDownError` and outages are logged.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    QueuePool,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from joker.core.errors import ConfigError, JokerError, StoreDownError, first_line, import_optional
from joker.store.tables import SCHEMA_VERSION

IN_MEMORY = "sqlite://"
"""URL of a database that lasts until the process ends."""

_MIGRATIONS = Path(__file__).with_name("migrations")
_WRITE = "joker_write"  # execution option of connections

_log = logging.getLogger(__name__)
_migration_lock = threading.Lock()  # Alembic keeps the running migration in a global


def default_database() -> str:
    """Return the URL of the SQLite file in the user's data folder."""
    path = platformdirs.user_data_path("joker") / "jokes.sqlite"
    return URL.create("sqlite", database=str(path)).render_as_string()


class Database:
    """A SQLite or PostgreSQL database for any number of threads, which survives outages.

    The first use connects, and creates or migrates the tables. After an outage it reconnects.

    Args:
        url: ``sqlite:///path``, ``sqlite://`` for memory, or ``postgresql://user:password@host/name``.
        timeout_seconds: How long to wait for a connection or a lock.
        retry_seconds: How long calls fail immediately after a failure, so that jokes do not wait
            for a database that is down.

    Raises:
        ConfigError: If the URL is invalid.
        MissingDependencyError: If it is a PostgreSQL URL and psycopg is not installed.
    """

    def __init__(self, url: str, *, timeout_seconds: float, retry_seconds: float) -> None:
        self._url = _parse(url)
        self._timeout_seconds = timeout_seconds
        self._retry_seconds = retry_seconds
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._path = (
            Path(self._url.database).absolute() if self._sqlite and self._url.database else None
        )
        self._engine: Engine | None = None
        self._file_id: tuple[int, int] | None = None
        self._open_lock = threading.Lock()
        # SQLite has one writer at a time. Waiting for this lock is fairer and faster than SQLite's
        # busy loop.
        self._write_lock = threading.Lock()
        self._state_lock = threading.Lock()
        self._down_reason: str | None = None
        self._retry_at = 0.0
        self.failures = 0

    @property
    def in_memory(self) -> bool:
        """Whether everything is lost when the process ends."""
        return self._sqlite and self._path is None

    @property
    def down(self) -> bool:
        """Whether the last call failed."""
        return self._down_reason is not None

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def begin(self, *, write: bool = False) -> Iterator[Connection]:
        """Open a transaction that the end of the block commits, or raise a `StoreDownError`."""
        engine = self._open()
        locked = write and self._sqlite
        if locked and not self._write_lock.acquire(timeout=self._timeout_seconds):
            raise self._failed("another thread holds the database")
        try:
            options = {_WRITE: write}
            with engine.connect().execution_options(**options) as connection, connection.begin():
                yield connection
            self._succeeded()
        except JokerError:
            self._succeeded()
            raise
        except SQLAlchemyError as error:
            if _is_outage(error):
                raise self._failed(_reason(error)) from error
            self.failures += 1
            _log.exception("a call to the store %s failed", self)
            raise StoreDownError(f"the store failed: {_reason(error)}") from error
        finally:
            if locked:
                self._write_lock.release()

    def lock(self, connection: Connection, name: str, *, wait: bool = True) -> bool:
        """Take a lock across processes until the transaction ends; return whether it was acquired.

        SQLite needs none: it runs one writing transaction at a time.
        """
        if self._sqlite:
            return True
        digest = hashlib.blake2b(f"joker:{name}".encode(), digest_size=8).digest()
        key = int.from_bytes(digest, signed=True)
        take = func.pg_advisory_xact_lock if wait else func.pg_try_advisory_xact_lock
        return connection.execute(select(take(key))).scalar() is not False

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        with self._open_lock:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def _open(self) -> Engine:
        """Return a migrated engine, or fail at once while the database is down."""
        with self._open_lock:
            if time.monotonic() < self._retry_at:
                self.failures += 1
                raise StoreDownError(f"the store is down: {self._down_reason}")
            if self._down_reason is not None:
                # Only this call checks whether the database is back; until then others fail.
                self._retry_at = time.monotonic() + self._retry_seconds
            if self._engine is not None and self._file_id == _identify(self._path):
                return self._engine
            if self._engine is not None:
                # The file was deleted or replaced: writes to the old one would be lost.
                self._engine.dispose()
                self._engine = None
            engine = None
            try:
                if self._path is not None:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                engine = self._make_engine()
                self._migrate(engine)
            except (SQLAlchemyError, sqlite3.Error, OSError, StoreDownError) as error:
                if engine is not None:
                    engine.dispose()
                raise self._failed(_reason(error)) from error
            self._engine, self._file_id = engine, _identify(self._path)
            return engine

    def _make_engine(self) -> Engine:
        if not self._sqlite:
            return create_engine(
                self._url,
                pool_pre_ping=True,
                pool_timeout=self._timeout_seconds,
                connect_args={
                    "connect_timeout": max(2, round(self._timeout_seconds)),
                    "tcp_user_timeout": round(self._timeout_seconds * 1000),
                    "options": f"-c lock_timeout={round(self._timeout_seconds * 1000)}",
                },
            )
        # A database in memory belongs to its connection, so all threads share one.
        size, overflow = (5, 10) if self._path else (1, 0)
        engine = create_engine(
            self._url.set(database=str(self._path)) if self._path else self._url,
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=overflow,
            pool_timeout=self._timeout_seconds,
            connect_args={
                "timeout": self._timeout_seconds,
                "isolation_level": None,  # `begin` below starts transactions
                "check_same_thread": False,
            },
        )

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A transaction that has already read cannot wait for the write lock.
            write = connection.get_execution_options().get(_WRITE)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

        return engine

    def _migrate(self, engine: Engine) -> None:
        """Create or migrate the tables; of several processes that start at once, one does."""
        if self._path is not None:
            _use_write_ahead_log(self._path, self._timeout_seconds)
        with engine.connect() as connection, connection.begin():
            if _is_current(connection):
                return
        with (
            _migration_lock,
            engine.connect().execution_options(**{_WRITE: True}) as connection,
            connection.begin(),
        ):
            self.lock(connection, "migrate")
            if not _is_current(connection):
                _upgrade(connection)

    def _failed(self, reason: str) -> StoreDownError:
        """Record an outage, and return the error to raise."""
        with self._state_lock:
            self.failures += 1
            self._retry_at = time.monotonic() + self._retry_seconds
            if self._down_reason is None:
                _log.warning("the store %s is down; jokes are told without it: %s", self, reason)
            self._down_reason = reason
        return StoreDownError(f"the store is down: {reason}")

    def _succeeded(self) -> None:
        with self._state_lock:
            if self._down_reason is not None:
                _log.warning("the store %s is up again", self)
            self._down_reason = None
            self._retry_at = 0.0


def _parse(database: str) -> URL:
    """Parse a URL, and choose the driver for PostgreSQL."""
    try:
        url = make_url(database)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        backend = ""
    if backend == "sqlite":
        in_memory = url.database in (None, "", ":memory:")
        return URL.create("sqlite") if in_memory else url.set(drivername="sqlite")
    if backend in ("postgresql", "postgres"):
        import_optional("psycopg", "PostgreSQL needs", extra="postgres")
        return url.set(drivername="postgresql+psycopg")
    # The URL may contain a password, so the message does not repeat it.
    raise ConfigError(
        "the database must be sqlite:///path/to/jokes.sqlite, sqlite:// (in memory) or "
        "postgresql://user:password@host/name"
    )


def _identify(path: Path | None) -> tuple[int, int] | None:
    """Return a file's device and inode, or None if there is no file."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status else None


def _use_write_ahead_log(path: Path, timeout_seconds: float) -> None:
    """Switch a SQLite file to write-ahead logging, so that writers do not block readers."""
    deadline = time.monotonic() + timeout_seconds
    with closing(sqlite3.connect(path, timeout_seconds, isolation_level=None)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                # SQLite's own timeout does not apply here if several processes start at once.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def _is_current(connection: Connection) -> bool:
    """Return whether the tables are migrated; if a newer package did it, raise `StoreDownError`."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if version is not None and version > SCHEMA_VERSION:
        raise StoreDownError(
            f"a newer version of this package migrated its tables (to version {version}; this one "
            f"supports {SCHEMA_VERSION}); upgrade the package"
        )
    return bool(version == SCHEMA_VERSION)


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _is_outage(error: SQLAlchemyError) -> bool:
    """Return whether an error comes from the database being down, not from the query."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, OperationalError | InterfaceError | PoolTimeoutError)


def _reason(error: Exception) -> str:
    """Return the first line of the database's own message."""
    return first_line((isinstance(error, DBAPIError) and error.orig) or error)
