from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest
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


def examine() -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor"])
    return done.exit_code, done.output


@pytest.mark.integration
def test_a_sound_installation_is_well(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    monkeypatch.setenv("JOKER_BROKER", redis_server.url)
    exit_code, output = examine()
    assert exit_code == 0
    assert "FAIL" not in output
    assert "tells jokes" in output
    assert re.search(r"Redis \d+\.\d+", output)
    assert "from the environment: broker, port" in output


def test_what_is_amiss_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("JOKER_PORT", str(other.getsockname()[1]))
        monkeypatch.setenv("JOKER_MODEL", "nowhere")
        monkeypatch.setenv("JOKER_BROKER", "redis://:secret@127.0.0.1:1/0")
        exit_code, output = examine()
    assert exit_code == 1
    assert re.findall(r"FAIL (\w+)", output) == ["model", "queue", "address"]
    assert "nowhere" in output
    assert "correct JOKER_BROKER" in output
    assert "choose another" in output
    assert "secret" not in output


def test_settings_that_cannot_be_read_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_MAX_QUEUE_SIZE", "lots")
    exit_code, output = examine()
    assert exit_code == 1
    assert "JOKER_MAX_QUEUE_SIZE" in output
