"""NGINX Unit itself is in no Debian or Python package: its configuration is tested without it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
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
    copied = {arguments.split()[-1] for arguments in STAGES["web"].arguments("COPY")}
    assert APPLICATION["home"] in copied
    assert "/docker-entrypoint.d/unit.json" in copied, "where Unit's image looks for it"


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
