from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from typer.testing import CliRunner

from joker.cli import app
from joker.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import RedisServer


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"JOKER_{name.upper()}", raising=False)
    monkeypatch.setenv("JOKER_PORT", "0")


def examine(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor", *arguments])
    return done.exit_code, done.output


@pytest.mark.integration
def test_a_sound_installation_passes(
    monkeypatch: pytest.MonkeyPatch, start_redis: Callable[..., RedisServer]
) -> None:
    monkeypatch.setenv("JOKER_BROKER", start_redis(maxmemory="64mb").url)
    exit_code, output = examine()
    assert exit_code == 0
    assert "FAIL" not in output
    assert "warn" not in output
    assert "tells jokes" in output
    assert re.search(r"Redis \d+\.\d+", output)
    assert "set: broker, port" in output


def test_what_fails_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("JOKER_PORT", str(other.getsockname()[1]))
        monkeypatch.setenv("JOKER_MODEL", "nowhere")
        monkeypatch.setenv("JOKER_BROKER", "redis://:secret@127.0.0.1:1/0")
        monkeypatch.setenv("JOKER_DATABASE", "mysql://me:secret@host/jokes")
        exit_code, output = examine()
    assert exit_code == 1
    assert re.findall(r"FAIL (\w+)", output) == ["model", "queue", "store", "address"]
    assert "nowhere" in output
    assert "--model (JOKER_MODEL): there is no model folder" in output
    assert "--broker (JOKER_BROKER): the queue's Redis at 127.0.0.1:1 cannot be used" in output
    assert "--database (JOKER_DATABASE): the database must be" in output
    assert "choose another" in output
    assert "secret" not in output


def test_settings_that_cannot_be_read_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_MAX_QUEUE_SIZE", "lots")
    exit_code, output = examine()
    assert exit_code == 1
    assert "JOKER_MAX_QUEUE_SIZE" in output


def test_options_are_checked_as_serve_takes_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        broker = "redis://127.0.0.1:1/0"
        exit_code, output = examine("--engine", "stub", "--broker", broker, "--port", port)
    assert exit_code == 1
    assert re.findall(r"^(ok|FAIL) +(\w+)", output, re.MULTILINE)[-4:] == [
        ("ok", "model"),
        ("FAIL", "queue"),
        ("ok", "store"),
        ("FAIL", "address"),
    ]
    assert "set: broker, engine, port" in output


def test_the_model_is_checked_with_the_teller_and_engine_of_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("[dark offensive]\nwhy\nwhat\nhow\n", encoding="utf-8")
    monkeypatch.setenv("JOKER_ENGINE", "stub")
    assert examine()[0] == 0
    monkeypatch.setenv("JOKER_MODERATION_LIST", str(listed))
    monkeypatch.setenv("JOKER_MAX_ATTEMPTS", "2")
    exit_code, output = examine()
    assert exit_code == 1
    assert re.search("FAIL model .*2 attempts.*withheld", output)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        ({}, ["has no memory limit"]),
        (
            {"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"},
            ["drops jobs when its memory is full (maxmemory-policy allkeys-lru)"],
        ),
        (
            {"maxmemory-policy": "volatile-ttl", "appendonly": "no"},
            ["has no memory limit", "drops jobs", "has no append-only file"],
        ),
    ],
)
def test_a_redis_that_may_lose_jobs_is_warned_of(
    start_redis: Callable[..., RedisServer], options: dict[str, str], warnings: list[str]
) -> None:
    broker = start_redis(**options).url
    exit_code, output = examine("--engine", "stub", "--broker", broker)
    assert exit_code == 0
    found = [line for line in output.splitlines() if line.startswith("warn")]
    assert len(found) == len(warnings)
    for line, warning in zip(found, warnings, strict=True):
        assert line.startswith(f"warn queue     Redis {warning}")
        assert "; set " in line


def test_a_redis_without_functions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Redis, "exists", lambda *_: 0)
    monkeypatch.setattr(Redis, "info", lambda *_: {"redis_version": "6.2.14"})
    exit_code, output = examine("--engine", "stub", "--broker", "redis://127.0.0.1:1/0")
    assert exit_code == 1
    assert re.search(r"FAIL queue +Redis 6\.2\.14 has no functions.*version 7", output)


def test_a_store_that_is_away_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    address = f"sqlite:///{tmp_path}/file/jokes.sqlite"
    exit_code, output = examine("--engine", "stub", "--database", address)
    assert exit_code == 1
    assert re.search(r"FAIL store .*correct --database \(JOKER_DATABASE\)", output)
