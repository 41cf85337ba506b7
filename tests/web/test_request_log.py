import json
import logging

import pytest
from fastapi.testclient import TestClient

from joker.core.logs import JsonLines

LOGGER = "joker.web.request_log"


def read_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(JsonLines().format(r)) for r in caplog.records if r.name == LOGGER]


def test_a_request_is_one_line_with_its_job(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        taken = client.post("/generate", json={"prompt": "private"})
    (line,) = read_lines(caplog)
    assert line["request_id"] == taken.headers["X-Request-ID"]
    assert line["task_id"] == taken.json()["task_id"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/generate", 202)
    assert line["level"] == "info"
    assert "private" not in json.dumps(line)


def test_a_well_formed_id_of_the_clients_is_kept(client: TestClient) -> None:
    for given, kept in (("abc-1", True), ("a b", False), ("x" * 129, False)):
        answered = client.get("/info", headers={"X-Request-ID": given}).headers["X-Request-ID"]
        assert (answered == given) is kept
