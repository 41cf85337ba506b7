from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub import constants as hub_constants
from huggingface_hub.repocard_data import eval_results_to_model_index
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from joker.core.model_folder import Manifest, ModelFolder, bundled_model
from joker.core.template import TEMPLATES
from joker.training.hub import write_card
from tests.command import joker

UPLOAD = pytest.mark.filterwarnings("ignore:Use 'content=")  # huggingface_hub's own
Push = Callable[..., subprocess.CompletedProcess[str]]


def card(path: Path, base: str = "new:tiny", **fields: Any) -> str:
    """Return the card of a model with this in its manifest."""
    write_card(path, Manifest(TEMPLATES["original"], base, 128, **fields))
    return (path / "README.md").read_text(encoding="utf-8")


def header_of(path: Path) -> dict[str, Any]:
    """Return the metadata that the hub finds in a folder's card."""
    found = metadata_load(path / "README.md")
    assert found
    return found


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({}, "No jokes were left out of training for being offensive."),
        (
            {"safe": True, "jokes_flagged": 1234},
            "Moderation flagged 1,234 training jokes as offensive",
        ),
        ({"jokes_leaked": 7}, "7 extra jokes were near-duplicates of test jokes"),
        ({"jokes_rated": 300}, "Of 300 rated jokes, those that work were added."),
        ({"jokes_rated": 300, "critic": True}, "A critic learned from all of them."),
        ({"parameters": 13_891_584}, "The model has 13.9 million parameters."),
        ({"learning_rate": 2e-4}, "| learning_rate | 0.0002 |"),
    ],
)
def test_the_card_says_how_the_model_was_trained(
    training: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert said in card(tmp_path, training=training)


def test_the_cards_header_is_what_the_hub_reads(tmp_path: Path) -> None:
    metrics = {"bits_per_byte": 1.2345678, "tokens_per_second": 900.0}
    card(tmp_path, "distilgpt2", metrics=metrics, data={"split": "clusters"})
    read = ModelCard.load(tmp_path / "README.md", ignore_metadata_errors=False)
    header = read.data.to_dict()
    assert header["license"] == "apache-2.0"
    assert header["base_model"] == "distilgpt2"
    assert header["pipeline_tag"] == "text-generation"
    assert header["language"] == "en"
    assert "jokes" in header["tags"]
    (result,) = read.data.eval_results
    assert (result.metric_type, result.metric_value) == ("bits_per_byte", 1.2346)
    assert header_of(tmp_path)["model-index"][0]["results"]


def test_the_bundled_models_header_is_what_the_hub_reads() -> None:
    folder = ModelFolder.open(bundled_model())
    read = ModelCard.load(folder.path / "README.md", ignore_metadata_errors=False)
    header = read.data.to_dict()
    assert header["base_model"] == folder.manifest.base_model
    validate_repo_id(header["base_model"])
    assert header["license"] == folder.read_license() == "apache-2.0"
    assert header["pipeline_tag"] == "text-generation"
    assert header["library_name"] == "openvino"
    assert header["language"] == "en"
    assert "jokes" in header["tags"]
    assert "datasets" not in header  # the hub takes its own only; these are Kaggle's and ours


def test_the_bundled_models_header_has_the_metrics_of_its_text() -> None:
    read = ModelCard.load(bundled_model() / "README.md", ignore_metadata_errors=False)
    results = {result.metric_type: result.metric_value for result in read.data.eval_results}
    assert f"| bits per byte | {results['bits_per_byte']} (" in read.text
    assert f"given the question | {results['answer_bits_per_byte']} (" in read.text
    accuracy = results["punchline_retrieval_accuracy"]
    assert f"(1,000 asked) | {accuracy:.1%} (" in read.text
    index = eval_results_to_model_index("The bundled joker", read.data.eval_results)
    assert index == header_of(bundled_model())["model-index"]


@pytest.mark.parametrize(
    ("base", "earlier", "named"),
    [
        ("new:tiny", [], None),
        ("/models/old", [], None),
        ("SmolLM2.Q4_1.gguf", [], None),
        ("HuggingFaceTB/SmolLM2-135M", [], "HuggingFaceTB/SmolLM2-135M"),
        ("my-joker", [{"base": "distilgpt2"}, {"base": "first"}], "distilgpt2"),
    ],
)
def test_only_a_base_of_the_hub_is_named_in_the_header(
    base: str, earlier: list[dict[str, Any]], named: str | None, tmp_path: Path
) -> None:
    card(tmp_path, base, earlier=earlier)
    assert header_of(tmp_path).get("base_model") == named


class Hub(ThreadingHTTPServer):
    """What of the hub an upload asks for, on a free port.

    Attributes:
        created: Repositories that were made, with what was asked for them.
        files: What was uploaded, by path.
    """

    def __init__(self, token: str = "hf_right") -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.token = token
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            self._answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.address}/me/jokes"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            # As the hub decides: text goes into the commit, all else among the large files.
            modes = [
                "regular" if each["path"].endswith((".json", ".md", ".xml")) else "lfs"
                for each in asked
            ]
            told = [
                {"path": each["path"], "uploadMode": mode, "shouldIgnore": False}
                for each, mode in zip(asked, modes, strict=True)
            ]
            self._answer({"files": told})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    **{key: each[key] for key in ("oid", "size")},
                    "actions": {"upload": {"href": f"{self.server.address}/store/{each['oid']}"}},
                }
                for each in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.objects[value["oid"]]
            url = f"{self.server.address}/me/jokes/commit/abc"
            self._answer({"success": True, "commitOid": "abc", "commitUrl": url, "hookOutput": ""})
        else:
            self._answer({"error": f"nobody asked for {self.path}"}, 404)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects[self.path.rpartition("/")[2]] = body
        self._answer({})

    def do_GET(self) -> None:
        self._answer({"id": "me/jokes", "sha": "abc", "siblings": []})

    def _answer(self, answer: dict[str, Any], code: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def push(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Push:
    """Return ``push(folder, token, *options)``, which runs ``joker export --push``."""
    monkeypatch.setattr(hub_constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)

    def run(folder: ModelFolder, token: str, *options: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("HF_TOKEN", token)
        return joker("export", folder.path, "--push", "me/jokes", *options)

    return run


@UPLOAD
@pytest.mark.integration
def test_push_uploads_the_whole_folder(copy: ModelFolder, hub: Hub, push: Push) -> None:
    (copy.path / "checkpoints").mkdir()
    (copy.path / "checkpoints" / "optimizer.pt").write_bytes(b"not for others")
    done = push(copy, "hf_right", "--private")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{hub.address}/me/jokes"
    (created,) = hub.created
    assert created["name"] == "jokes"
    assert created.get("visibility") == "private" or created.get("private")
    shutil.rmtree(copy.path / "checkpoints")
    paths = [path for path in copy.path.rglob("*") if path.is_file()]
    assert hub.files == {str(path.relative_to(copy.path)): path.read_bytes() for path in paths}


@UPLOAD
@pytest.mark.integration
def test_a_folder_without_weights_is_pushed_with_the_graph_that_it_has(
    graph_only: ModelFolder, hub: Hub, push: Push
) -> None:
    done = push(graph_only, "hf_right")
    assert done.returncode == 0, done.stderr
    graph = graph_only.openvino / "openvino_model.bin"
    assert hub.files["openvino/openvino_model.bin"] == graph.read_bytes()


@pytest.mark.integration
def test_a_push_that_the_hub_refuses_is_one_sentence(graph_only: ModelFolder, push: Push) -> None:
    done = push(graph_only, "hf_wrong")
    assert done.returncode == 2
    assert "cannot push to me/jokes" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr
    assert graph_only.has_openvino
