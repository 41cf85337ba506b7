"""Addresses, migrations, and what can happen to a file."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text

from joker.core.errors import ConfigError, MissingDependencyError, StoreDownError, UnknownJokeError
from joker.store import IN_MEMORY, Votes, default_database
from joker.store import database as database_module
from joker.store.tables import SCHEMA_VERSION, metadata
from tests.store.conftest import Backend, OpenStore
from tests.store.told import add, draft, told

MIGRATIONS = str(Path(database_module.__file__).with_name("migrations"))


@pytest.fixture
def engine(shared: Backend) -> Iterator[Engine]:
    url = shared.url.replace("postgresql:", "postgresql+psycopg:")
    engine = create_engine(url)
    yield engine
    engine.dispose()


def migrate(engine: Engine, version: str) -> None:
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)


def test_the_tables_are_what_the_migrations_make(
    make_store: OpenStore, shared: Backend, engine: Engine
) -> None:
    make_store(shared.url).check()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == SCHEMA_VERSION


def test_the_newest_migration_is_the_version_of_the_schema() -> None:
    assert ScriptDirectory(MIGRATIONS).get_heads() == [SCHEMA_VERSION]


def test_a_database_of_the_first_version_is_upgraded_with_all_that_is_in_it(
    make_store: OpenStore, shared: Backend, engine: Engine
) -> None:
    migrate(engine, "0001")
    insert = text(
        "INSERT INTO jokes (id, question, answer, details, model, categories, safe, created_at, up)"
        " VALUES ('AAAAAAAAAAAA', 'Why?', 'Because.', '{\"seed\": 1}', 'old', ',dark,', true, 1, 1)"
    )
    vote = text("INSERT INTO votes VALUES ('AAAAAAAAAAAA', 'someone', 'up', 1)")
    with engine.begin() as connection:
        connection.execute(insert)
        connection.execute(vote)
    store = make_store(shared.url)
    joke = store.get("AAAAAAAAAAAA")
    assert (joke.question, joke.categories, joke.picked) == ("Why?", ("dark",), False)
    assert joke.details == {"seed": 1}
    assert store.vote(joke.id, "ann", "down") == Votes(up=1, down=1)
    assert draft(store, 1)


def test_a_database_of_a_newer_version_is_refused(
    make_store: OpenStore, shared: Backend, engine: Engine
) -> None:
    make_store(shared.url).check()
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store = make_store(shared.url)
    with pytest.raises(StoreDownError, match="newer version of this package"):
        store.check()
    assert store.add(told(), model="tiny") is None


@pytest.mark.parametrize(
    "url",
    ["", "jokes.sqlite", "mysql://user:hush@host/name", "redis://host", "://", "sqlite", "x" * 999],
)
def test_another_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///path") as refused:
        database_module.Database(url, timeout_seconds=1, retry_seconds=1)
    assert "hush" not in str(refused.value)


def test_postgresql_without_its_driver_names_the_extra(
    make_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingDependencyError, match=r"gpt2-the-joker\[postgres\]"):
        make_store("postgresql://localhost/jokes")


def test_a_driver_that_finds_no_postgresql_library_names_the_extra(
    make_store: OpenStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As psycopg without its extra ``binary`` does where libpq is not installed.
    reason = "no pq wrapper available.\nAttempts made: ..."
    (tmp_path / "psycopg.py").write_text(f"raise ImportError({reason!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "psycopg", raising=False)
    with pytest.raises(MissingDependencyError) as refused:
        make_store("postgresql://localhost/jokes")
    assert str(refused.value) == (
        "psycopg cannot be imported (no pq wrapper available.); "
        "PostgreSQL needs pip install 'gpt2-the-joker[postgres]'"
    )


def test_no_password_is_shown(make_store: OpenStore) -> None:
    store = make_store("postgres://joker:hush@localhost/jokes")
    assert str(store) == "postgresql+psycopg://joker:***@localhost/jokes"


def test_by_default_the_file_is_in_the_users_data_folder(
    make_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "new folder"))
    store = make_store()
    add(store)
    store.close()
    assert (tmp_path / "new folder/joker/jokes.sqlite").is_file()
    assert default_database().startswith("sqlite:////")


@pytest.mark.parametrize("url", [IN_MEMORY, "sqlite:///:memory:"])
def test_in_memory_no_file_is_made(
    make_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    store = make_store(url)
    assert store.get(add(store)).question == told().question
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_in_memory_there_are_fewer_jokes_by_default(make_store: OpenStore, tmp_path: Path) -> None:
    assert (
        make_store(IN_MEMORY)._max_jokes < make_store(f"sqlite:///{tmp_path}/a.sqlite")._max_jokes
    )


def test_a_file_is_written_ahead(make_store: OpenStore, tmp_path: Path) -> None:
    store = make_store(f"sqlite:///{tmp_path}/jokes.sqlite")
    store.check()
    with sqlite3.connect(tmp_path / "jokes.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_deleted_file_is_created_again(make_store: OpenStore, tmp_path: Path) -> None:
    path = tmp_path / "jokes.sqlite"
    store = make_store(f"sqlite:///{path}")
    lost = add(store)
    path.unlink()
    kept = add(store)
    with pytest.raises(UnknownJokeError):
        store.get(lost)
    store.close()
    assert make_store(f"sqlite:///{path}").get(kept).id == kept


def test_a_file_moved_away_and_back_is_the_same(make_store: OpenStore, tmp_path: Path) -> None:
    path, backup = tmp_path / "jokes.sqlite", tmp_path / "backup.sqlite"
    store = make_store(f"sqlite:///{path}")
    joke = add(store)
    store.close()
    shutil.move(path, backup)
    with pytest.raises(UnknownJokeError):
        store.get(joke)
    store.close()
    shutil.move(backup, path)
    assert store.get(joke).id == joke


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_stops_no_joke(
    make_store: OpenStore, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "jokes.sqlite"
    path.write_bytes(content)
    store = make_store(f"sqlite:///{path}")
    assert store.add(told(), model="tiny") is None
    with pytest.raises(StoreDownError):
        store.top()
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_stops_no_joke(make_store: OpenStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = make_store(f"sqlite:///{tmp_path}/file/jokes.sqlite")
    assert store.add(told(), model="tiny") is None
    assert store.failures == 1


def test_a_lost_table_is_an_error_and_no_outage(
    make_store: OpenStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(f"sqlite:///{tmp_path}/jokes.sqlite")
    joke = add(store)
    with sqlite3.connect(tmp_path / "jokes.sqlite") as connection:
        connection.execute("ALTER TABLE votes RENAME COLUMN vote TO opinion")
    connection.close()
    with pytest.raises(StoreDownError):
        store.vote(joke, "ann", "up")
    store.close()
    assert store.failures == 1


def test_importing_the_store_loads_neither_alembic_nor_pytorch() -> None:
    code = "import sys, joker.store; print({'alembic', 'torch', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
