"""NGINX Unit itself is in no Debian or Python package: its configuration is tested without it."""

from __future__ import annotations

import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.deploy.dockerfile import STAGES

if TYPE_CHECKING:
    from tests.conftest import RedisServer

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIG = DEPLOY / "unit.json"
APPLICATION: dict[str, Any] = json.loads(CONFIG.read_text(encoding="utf-8"))["applications"][
    "joker"
]


def check(file: Path) -> subprocess.CompletedProcess[str]:
    schema = Path(__file__).with_name("unit.schema.json")
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema)]
    return subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)


def test_the_configuration_has_the_documented_structure(tmp_path: Path) -> None:
    assert check(CONFIG).returncode == 0
    wrong = tmp_path / "unit.json"
    wrong.write_text(CONFIG.read_text(encoding="utf-8").replace("callable", "callabel"))
    assert "callabel" in check(wrong).stdout


def test_listeners_pass_to_applications_that_exist() -> None:
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    for listener in config["listeners"].values():
        assert listener["pass"].removeprefix("applications/") in config["applications"]


def test_the_image_holds_what_the_configuration_names() -> None:
    copies = [arguments.split() for arguments in STAGES["web"].arguments("COPY")]
    assert APPLICATION["home"] in [target for *_, target in copies]
    # Where Unit's image looks for its configuration, and for scripts to run after it.
    (files,) = [files for *files, target in copies if target == "/docker-entrypoint.d/"]
    assert files == ["deploy/unit.json", "deploy/unit-forwarded.sh"]


@pytest.mark.parametrize(
    ("given", "sources"),
    [
        ("10.0.0.1", ["10.0.0.1"]),
        ("127.0.0.1, 172.16.0.0/12", ["127.0.0.1", "172.16.0.0/12"]),
        ("", None),
    ],
)
def test_unit_is_told_which_proxies_to_believe(
    tmp_path: Path, given: str, sources: list[str] | None
) -> None:
    listener = json.loads(CONFIG.read_text(encoding="utf-8"))["listeners"]["*:8080"]
    assert listener["forwarded"] == {
        "client_ip": "X-Forwarded-For",
        "protocol": "X-Forwarded-Proto",
        # The rightmost address that is no proxy's counts.
        "recursive": True,
        "source": ["127.0.0.1"],
    }
    with Control(tmp_path / "socket") as control:
        assert run_script(tmp_path, given).returncode == 0
    assert control.received == (
        [("PUT", "/config/listeners/*:8080/forwarded/source", sources)] if sources else []
    )


def test_nobody_is_believed_without_a_name(tmp_path: Path) -> None:
    done = run_script(tmp_path, "*")
    assert done.returncode == 1
    assert "name addresses or networks" in done.stderr


def run_script(folder: Path, given: str) -> subprocess.CompletedProcess[str]:
    """Run ``unit-forwarded.sh`` against a control socket in a folder."""
    text = (DEPLOY / "unit-forwarded.sh").read_text(encoding="utf-8")
    script = text.replace("/var/run/control.unit.sock", str(folder / "socket"))
    environment = os.environ | {"FORWARDED_ALLOW_IPS": given}
    return subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, check=False
    )


class Control(socketserver.UnixStreamServer):
    """Unit's control socket: keeps what it is sent."""

    def __init__(self, path: Path) -> None:
        self.received: list[tuple[str, str, Any]] = []
        super().__init__(str(path), Receiver)

    def __enter__(self) -> Control:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Receiver(BaseHTTPRequestHandler):
    server: Control

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.command, self.path, json.loads(body)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass


def test_the_image_is_of_a_version_that_knows_factories() -> None:
    found = re.fullmatch(r"unit:(\d+)\.(\d+)\.\d+-python3\.\d+-slim", STAGES["web"].base)
    assert found is not None
    assert (int(found[1]), int(found[2])) >= (1, 33)


@pytest.mark.integration
def test_the_application_starts_by_the_names_in_the_configuration(
    redis_server: RedisServer,
) -> None:
    assert APPLICATION["factory"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    name = f"{APPLICATION['module']}:{APPLICATION['callable']}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JOKER_")}
    environment["JOKER_BROKER"] = redis_server.url.removesuffix("0") + "8"
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", name, "--port", str(port)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                answer = httpx2.get(f"http://127.0.0.1:{port}/health/live")
                break
            except httpx2.ConnectError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
        assert answer.json() == {"status": "ok"}
    finally:
        process.terminate()
        process.wait(60)
