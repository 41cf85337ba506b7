from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from joker.core.model_folder import ModelFolder, write_manifest
from joker.core.tokenizer import FAILS, WORKS, JokeTokenizer
from joker.engines.weights import load_causal_lm
from tools.average_weights import WEIGHTS, main


@pytest.fixture
def fine_tuned(tiny_folder: ModelFolder, tmp_path: Path) -> ModelFolder:
    """Return the tiny model with other weights, a metric and an old graph."""
    path = tmp_path / "tuned"
    shutil.copytree(tiny_folder.path, path)
    weights = load_file(path / WEIGHTS)
    moved = {name: value + torch.rand_like(value) for name, value in weights.items()}
    save_file(moved, path / WEIGHTS, metadata={"format": "pt"})
    manifest = replace(
        tiny_folder.manifest,
        training={"base": "tiny"},
        metrics={"perplexity": 7.5},
        earlier=[{"base": "new:tiny"}],
    )
    write_manifest(path, manifest)
    (path / "README.md").write_text("measured at 7.5", encoding="utf-8")
    (path / "openvino").mkdir()
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (path / "openvino" / name).touch()
    return ModelFolder.open(path)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Path | str) -> None:
    monkeypatch.setattr("sys.argv", ["average_weights.py", *map(str, arguments)])
    main()


def test_the_mean_of_two_models_is_a_model_that_claims_nothing_of_either(
    tiny_folder: ModelFolder,
    fine_tuned: ModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(monkeypatch, tiny_folder.path, fine_tuned.path, tmp_path / "mean", "--share", "0.25")
    folder = ModelFolder.open(tmp_path / "mean")
    first, second, mean = (
        load_file(one.path / WEIGHTS) for one in (tiny_folder, fine_tuned, folder)
    )
    assert mean.keys() == first.keys()
    for name, value in mean.items():
        torch.testing.assert_close(value, (3 * first[name] + second[name]) / 4)
    assert folder.manifest.training == {
        "average_of": [tiny_folder.path.name, "tuned"],
        "share_of_second": 0.25,
    }
    assert folder.manifest.earlier == [{"base": "new:tiny"}, {"base": "tiny"}]
    assert folder.manifest.metrics == {}
    assert "7.5" not in (folder.path / "README.md").read_text(encoding="utf-8")
    assert not folder.openvino.exists()
    model: Any = load_causal_lm(folder, "cpu")
    assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


def test_models_of_different_shapes_are_refused_in_one_sentence(
    make_tiny_folder: Callable[..., ModelFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    special, plain = make_tiny_folder("original"), make_tiny_folder("words")
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, special.path, plain.path, tmp_path / "mean")
    said = str(refused.value.code)
    assert said == (
        f"error: the weights of {special.path} and {plain.path} differ in name or shape; "
        "average a model with its own fine-tune"
    )
    assert not (tmp_path / "mean").exists()


def test_models_whose_rows_belong_to_different_tokens_are_refused(
    tiny_folder: ModelFolder,
    fine_tuned: ModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = fine_tuned.path / "tokenizer.json"
    state = json.loads(tokenizer.read_text(encoding="utf-8"))
    vocabulary = state["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    tokenizer.write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"vocabularies of .* differ"):
        run(monkeypatch, tiny_folder.path, fine_tuned.path, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_a_missing_model_missing_weights_and_a_target_in_use_are_refused(
    tiny_folder: ModelFolder,
    fine_tuned: ModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, graph_only, out = tiny_folder.path, fine_tuned.path, tmp_path / "mean"
    (graph_only / WEIGHTS).unlink()
    for first, second, target, said in (
        (tmp_path / "nowhere", known, out, "no model folder"),
        (known, graph_only, out, "has no model.safetensors"),
        (known, known, graph_only, "exists"),
    ):
        with pytest.raises(SystemExit, match=said):
            run(monkeypatch, first, second, target)
    assert not out.exists()


def test_a_critic_can_be_left_out(
    tiny_folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    critic = tmp_path / "critic"
    shutil.copytree(tiny_folder.path, critic)
    backend = Tokenizer.from_file(str(critic / "tokenizer.json"))
    backend.add_special_tokens([WORKS, FAILS])
    backend.save(str(critic / "tokenizer.json"))
    run(monkeypatch, critic, critic, tmp_path / "with")
    run(monkeypatch, critic, critic, tmp_path / "without", "--drop-critic")
    template = tiny_folder.manifest.template
    assert JokeTokenizer.from_folder(tmp_path / "with", template).has_critic
    assert not JokeTokenizer.from_folder(tmp_path / "without", template).has_critic
