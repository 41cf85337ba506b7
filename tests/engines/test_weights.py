from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from joker.core.errors import InputError, ModelFolderError, ResourceError
from joker.core.model_folder import ModelFolder
from joker.engines.weights import load_causal_lm, out_of_memory_as_resource_error


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: ModelFolder) -> ModelFolder:
    """Return a copy of the tiny model folder, to damage."""
    shutil.copytree(tiny_folder.path, tmp_path / "copy")
    return ModelFolder.open(tmp_path / "copy")


def test_a_model_is_ready_for_inference_in_32_bits(folder: ModelFolder) -> None:
    model = load_causal_lm(folder, "cpu")
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_loading_prints_nothing(folder: ModelFolder, capfd: pytest.CaptureFixture[str]) -> None:
    load_causal_lm(folder)
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_weights_is_refused(folder: ModelFolder) -> None:
    (folder.path / "model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match=r"has no model\.safetensors"):
        load_causal_lm(folder)


def test_cut_off_weights_are_refused(folder: ModelFolder) -> None:
    weights = folder.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelFolderError, match="cannot load the model"):
        load_causal_lm(folder)


def test_weights_that_lack_a_part_are_refused(folder: ModelFolder) -> None:
    weights = folder.path / "model.safetensors"
    tensors = load_file(weights)
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelFolderError, match=r"lack transformer\.h\.1\.mlp\.c_fc\.weight"):
        load_causal_lm(folder)


@pytest.mark.parametrize("change", [{"n_embd": 32}, {"model_type": "unheard-of"}])
def test_a_configuration_of_another_model_is_refused(
    folder: ModelFolder, change: dict[str, object]
) -> None:
    config = folder.path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ModelFolderError, match="cannot load the model"):
        load_causal_lm(folder)


def test_a_device_that_is_not_there_is_named(folder: ModelFolder) -> None:
    with pytest.raises(InputError, match="'abacus'"):
        load_causal_lm(folder, "abacus")


def test_running_out_of_memory_is_a_resource_error() -> None:
    with (
        pytest.raises(ResourceError, match="out of memory while adding"),
        out_of_memory_as_resource_error("adding"),
    ):
        torch.empty(2**50)


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="unrelated"), out_of_memory_as_resource_error("adding"):
        raise RuntimeError("unrelated")
