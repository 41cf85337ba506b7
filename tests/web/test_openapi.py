"""What the OpenAPI document promises, asked for by a machine that reads it and tries everything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")

MakeClient = Callable[..., AbstractContextManager[TestClient]]
Serve = Callable[..., AbstractContextManager[str]]


@pytest.mark.integration
def test_every_answer_is_as_documented(serve: Serve, tmp_path: Path) -> None:
    with serve(api_keys="sesame") as address:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"),
                *("--max-examples", "15", "--generation-deterministic", "--no-shrink"),
                *("--phases", "coverage,fuzzing", "--request-timeout", "60"),
                *("--header", "Authorization: Bearer sesame", "--no-color"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS)},
        )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_document_states_this_servers_limits(make_client: MakeClient) -> None:
    with make_client(max_count=3, max_candidates=2, max_new_tokens=9, max_prompt_characters=5) as c:
        document = c.get("/openapi.json").json()
    body = document["components"]["schemas"]["JokeParameters"]["properties"]
    assert body["n"]["maximum"] == 3
    assert body["candidates"]["anyOf"][0]["maximum"] == 2
    assert body["textprompt"]["maxLength"] == body["prompt"]["maxLength"] == 5
    query = {one["name"]: one["schema"] for one in document["paths"]["/joke"]["get"]["parameters"]}
    assert query["max_new_tokens"]["maximum"] == 9


def test_keys_are_documented_where_they_are_asked_for(make_client: MakeClient) -> None:
    for keys, asked in ((), False), (("sesame",), True):
        with make_client(api_keys=keys) as client:
            document = client.get("/openapi.json").json()
        assert ("securitySchemes" in document["components"]) is asked
        assert ("security" in document["paths"]["/joke"]["get"]) is asked
        assert "security" not in document["paths"]["/health/live"]["get"]


def test_a_method_that_a_path_does_not_take_is_told_all_that_it_takes(client: TestClient) -> None:
    for method in ("OPTIONS", "TRACE", "PUT"):
        refused = client.request(method, "/generate/x")
        assert refused.status_code == 405
        assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD", "DELETE"}
    assert client.put("/").headers["Allow"] == "GET, HEAD"
