from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from joker.web.app import open_app

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


@pytest.mark.usefixtures("_logging_as_before")
def test_an_application_for_many_processes_needs_a_broker(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        open_app()
    (line,) = capsys.readouterr().err.splitlines()
    assert "set JOKER_BROKER" in json.loads(line)["message"]


# Unit embeds Python and shows nothing of what a factory raises.
EMBEDDED = """
from joker.web.app import open_app
try:
    open_app()
except BaseException:
    print("factory did not return a callable object", flush=True)
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    "command",
    [
        ["-c", EMBEDDED],
        ["-m", "uvicorn", "--factory", "joker.web.app:open_app", "--port=0"],
        ["-m", "uvicorn", "--factory", "joker.web.app:open_app", "--port=0", "--workers=2"],
    ],
    ids=["embedded", "one process", "several processes"],
)
def test_a_wrong_setting_is_one_sentence_and_the_end_under_any_server(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if "JOKER_" not in name}
    done = subprocess.run(
        [sys.executable, *command],
        env=environment | {"JOKER_BROKER": "http://queue"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if not line.startswith("INFO:")]
    assert "--broker (JOKER_BROKER)" in json.loads(said[0])["message"]
    assert "Traceback" not in done.stdout


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
