from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from openvino import opset13 as ops
from safetensors.torch import load_file, save_file

from joker.core.errors import MissingDependencyError, ModelFolderError
from joker.core.model_folder import ModelFolder
from joker.training import export
from joker.training.export import MAX_MEAN_KL, export_openvino


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


@pytest.mark.integration
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


@pytest.mark.integration
def test_weights_that_a_base_had_in_4_bits_are_not_rounded_again(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    even = random.normal(size=(64, 96)).astype(np.float32)
    kept = dequantize(quantize(even, GGMLQuantizationType.Q4_1), GGMLQuantizationType.Q4_1)
    entry = ops.parameter([-1, 96], np.float32)
    inner = ops.matmul(entry, ops.constant(kept), False, True, name="kept")
    outer = ops.matmul(inner, ops.constant(even), False, False, name="other")
    model = openvino.Model([outer], [entry])
    inputs = random.normal(size=(3, 96)).astype(np.float32)
    expected = inputs @ kept.T @ even

    assert export._store_4_bit_weights(model) == ["kept"]

    openvino.save_model(model, tmp_path / "model.xml")
    compiled = openvino.Core().compile_model(
        tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert np.abs(compiled(inputs)[0] - expected).max() < 0.002 * np.abs(expected).max()
    assert [str(one.get_element_type()) for one in constants(model) if one.shape[-1] == 32] == [
        "<Type: 'uint4_t'>"
    ]


def constants(model: Any) -> list[Any]:
    return [one for one in model.get_ordered_ops() if one.get_type_name() == "Constant"]


@pytest.mark.integration
def test_a_new_export_takes_the_place_of_the_old(
    served_folder: ModelFolder, tmp_path: Path
) -> None:
    shutil.copytree(served_folder.path, tmp_path / "model")
    folder = ModelFolder.open(tmp_path / "model")
    (folder.openvino / "openvino_model.bin").write_bytes(b"old")
    export_openvino(folder)
    assert (folder.openvino / "openvino_model.bin").stat().st_size > 1000
    assert names(folder.path) == names(served_folder.path)


@pytest.mark.integration
def test_a_graph_that_disagrees_leaves_nothing_behind(
    copy: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(copy.path)
    monkeypatch.setattr(export, "MAX_MEAN_KL", 0.0)
    with pytest.raises(ModelFolderError, match="disagrees"):
        export_openvino(copy)
    assert names(copy.path) == before


@pytest.mark.integration
def test_weights_that_are_no_numbers_leave_nothing_behind(copy: ModelFolder) -> None:
    before = names(copy.path)
    file = copy.path / "model.safetensors"
    weights = load_file(file)
    weights["transformer.ln_f.weight"].fill_(float("nan"))
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelFolderError, match="nan nats"):
        export_openvino(copy)
    assert names(copy.path) == before


@pytest.mark.integration
def test_a_folder_without_weights_is_refused(graph_only: ModelFolder) -> None:
    with pytest.raises(ModelFolderError, match="has no model"):
        export_openvino(graph_only)


@pytest.mark.integration
def test_a_missing_exporter_is_named(copy: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optimum.intel", None)
    with pytest.raises(MissingDependencyError, match="optimum"):
        export_openvino(copy)
