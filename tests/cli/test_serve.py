from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import httpx2
import pytest

from tests.command import joker

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("JOKER_")}
ENVIRONMENT["JOKER_POOL_SIZE"] = "0"  # no other jobs than those of the tests
ENVIRONMENT["JOKER_CANDIDATES"] = "2"


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "joker", "serve", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
        (["--port", "70000"], "--port (JOKER_PORT)"),
        (["--broker", "http://x"], "--broker (JOKER_BROKER)"),
        (["--model", "nowhere", "--port", "0"], "--model (JOKER_MODEL): there is no model folder"),
        (["--database", "mysql://x", "--port", "0"], "--database (JOKER_DATABASE): the database"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments: list[str], named: str) -> None:
    done = joker("serve", *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = joker("serve", "--port", port)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert port in done.stderr
    assert "choose another" in done.stderr


@pytest.mark.integration
@pytest.mark.parametrize(("stop", "exit_code"), [(signal.SIGINT, 0), (signal.SIGTERM, -15)])
def test_the_bundled_model_tells_jokes_until_a_signal_comes(
    stop: signal.Signals, exit_code: int
) -> None:
    with start("--port", "0") as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("Open http://127.0.0.1:")
        address = line.split()[1]
        with httpx2.Client(base_url=address, timeout=300) as client:
            assert len(client.get("/joke").text.splitlines()) >= 2
            assert client.get("/health/ready").status_code == 200
        process.send_signal(stop)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == exit_code
    assert "Traceback" not in errors
    messages = [json.loads(line)["message"] for line in errors.splitlines()]
    assert messages == ["attempt", "request", "request"], "one line each and nothing else"
