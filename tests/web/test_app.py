import json
import re
import subprocess
import sys
import threading

import pytest
from fastapi.testclient import TestClient

from joker.core.errors import StoreDownError
from joker.store import Store
from joker.web import archive
from joker.web.openai_schemas import ChatBody, CompletionBody
from joker.web.schemas import JokeParameters
from tests.web.conftest import MakeClient

HEAVY = ["torch", "transformers", "mlflow", "pyarrow", "openvino_genai"]


def test_the_api_loads_no_training_library_and_no_engine() -> None:
    code = f"import sys, joker.web.server; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_openapi_document_is_whole(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    names = document["components"]["schemas"].keys()
    assert set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))) <= names
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert all(one["summary"] and one["description"] and one["tags"] for one in operations)


def test_the_documented_examples_are_accepted() -> None:
    for kind in (JokeParameters, CompletionBody, ChatBody):
        for example in kind.model_json_schema()["examples"]:
            kind.model_validate(example)


def test_a_server_that_tells_nothing_deletes_what_is_too_old(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = threading.Semaphore(0)

    def prune(_: Store) -> int:
        often.release()
        raise StoreDownError("the store is down")  # which ends nothing

    monkeypatch.setattr(Store, "prune", prune)
    monkeypatch.setattr(archive, "_PRUNE_SECONDS", 0.01)
    with make_client():
        assert all(often.acquire(timeout=60) for _ in range(2))
