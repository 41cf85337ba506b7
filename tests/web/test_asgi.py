from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from joker.core.errors import ConfigError
from joker.web.asgi import open_app

if TYPE_CHECKING:
    from tests.conftest import RedisServer


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    root, joker = logging.getLogger(), logging.getLogger("joker")
    handlers, levels = root.handlers[:], (root.level, joker.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    joker.setLevel(levels[1])


def test_an_application_for_many_processes_needs_a_broker() -> None:
    with pytest.raises(ConfigError, match="JOKER_BROKER"):
        open_app()


@pytest.mark.integration
@pytest.mark.usefixtures("_logging_as_before")
def test_a_job_of_one_application_is_known_to_another(
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("JOKER_BROKER", redis_server.url.removesuffix("0") + "7")
    with TestClient(open_app()) as one, TestClient(open_app()) as other:
        job = one.post("/generate", json={"textprompt": "Why do"}).json()
        assert other.get(f"/generate/{job['task_id']}").json()["state"] == "PENDING"
    assert {json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()} == {
        "request"
    }
