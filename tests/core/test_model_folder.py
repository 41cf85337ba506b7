import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from joker.core.errors import ModelFolderError
from joker.core.model_folder import FORMAT_VERSION, MANIFEST, Manifest, ModelFolder, write_manifest
from joker.core.template import TEMPLATES

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
FACTS = Manifest(TEMPLATES["words"], "new:tiny", 128, data={"seed": 3}, metrics={"loss": 1.5})


TWINS = {"name": "x", "question_prefix": "ab", "answer_prefix": "bc"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).write_text("{}")
    write_manifest(tmp_path, FACTS)
    return tmp_path


def test_a_manifest_is_read_back_as_it_was_written(folder: Path) -> None:
    assert ModelFolder.open(folder).manifest == FACTS


@pytest.mark.parametrize("name", [MANIFEST, "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=name):
        ModelFolder.open(folder)


def test_a_folder_without_any_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match="neither"):
        ModelFolder.open(folder)


def test_a_graph_alone_is_enough(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "openvino").mkdir()
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (folder / "openvino" / name).touch()
    opened = ModelFolder.open(folder)
    assert opened.has_openvino
    assert not opened.has_weights


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format_version": FORMAT_VERSION + 1}, "format version 2"),
        ({"format_version": None}, "format version None"),
        ({"template": {"name": "x"}}, "'template.question_prefix' is missing"),
        ({"template": TWINS}, "could be mistaken"),
        ({"context_length": "long"}, "'context_length' must be a whole number, not 'long'"),
        ({"data": None}, "'data' must be an object"),
        ({"colour": "red"}, "unknown setting 'colour'"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    folder: Path, change: dict[str, Any], named: str
) -> None:
    fields = {**asdict(FACTS), **change}
    (folder / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(ModelFolderError, match=named) as caught:
        ModelFolder.open(folder)
    assert str(folder / MANIFEST) in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_a_damaged_manifest_is_one_sentence(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ModelFolderError, match=MANIFEST):
        ModelFolder.open(folder)


def test_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="no model folder"):
        ModelFolder.open(tmp_path / "none")
