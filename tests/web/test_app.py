import json
import re
import subprocess
import sys

from fastapi.testclient import TestClient

from joker.web.openai_schemas import ChatBody, CompletionBody
from joker.web.schemas import JokeParameters

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
