from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from joker.core.errors import MissingPartError, ModelFolderError
from joker.core.model_folder import ModelFolder
from joker.training import export
from joker.training.export import MAX_MEAN_KL, export_openvino

pytestmark = pytest.mark.integration


@pytest.fixture
def copy(tiny_folder: ModelFolder, tmp_path: Path) -> ModelFolder:
    shutil.copytree(tiny_folder.path, tmp_path / "model")
    return ModelFolder.open(tmp_path / "model")


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_export_adds_an_int8_graph_and_its_tokenizer(
    copy: ModelFolder, tiny_folder: ModelFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    check = export_openvino(copy)
    assert copy.has_openvino
    assert names(copy.path) == names(tiny_folder.path) | {"openvino"}
    assert names(copy.openvino) == {
        "config.json",
        "generation_config.json",
        "openvino_model.bin",
        "openvino_model.xml",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    weights = copy.path / "model.safetensors"
    assert (copy.openvino / "openvino_model.bin").stat().st_size < weights.stat().st_size / 3
    assert str(copy.path) not in (copy.openvino / "openvino_model.xml").read_text("utf-8")
    assert 0 < check.mean_kl <= MAX_MEAN_KL
    assert check.agreement > 0.9
    assert check.positions > 100
    assert capfd.readouterr() == ("", "")


def test_a_new_export_takes_the_place_of_the_old(
    served_folder: ModelFolder, tmp_path: Path
) -> None:
    shutil.copytree(served_folder.path, tmp_path / "model")
    folder = ModelFolder.open(tmp_path / "model")
    (folder.openvino / "openvino_model.bin").write_bytes(b"old")
    export_openvino(folder)
    assert (folder.openvino / "openvino_model.bin").stat().st_size > 1000
    assert names(folder.path) == names(served_folder.path)


def test_a_graph_that_disagrees_leaves_nothing_behind(
    copy: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(copy.path)
    monkeypatch.setattr(export, "MAX_MEAN_KL", 0.0)
    with pytest.raises(ModelFolderError, match="disagrees"):
        export_openvino(copy)
    assert names(copy.path) == before


def test_weights_that_are_no_numbers_leave_nothing_behind(copy: ModelFolder) -> None:
    before = names(copy.path)
    file = copy.path / "model.safetensors"
    weights = load_file(file)
    weights["transformer.ln_f.weight"].fill_(float("nan"))
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelFolderError, match="nan nats"):
        export_openvino(copy)
    assert names(copy.path) == before


def test_a_folder_without_weights_is_refused(served_folder: ModelFolder, tmp_path: Path) -> None:
    shutil.copytree(served_folder.path, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match="holds no model"):
        export_openvino(ModelFolder.open(tmp_path / "model"))


def test_a_missing_exporter_is_named(copy: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optimum.intel", None)
    with pytest.raises(MissingPartError, match="optimum"):
        export_openvino(copy)
