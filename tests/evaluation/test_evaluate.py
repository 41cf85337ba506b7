from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from joker.core.errors import ConfigError
from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.evaluation import EvaluationConfig
from joker.evaluation.evaluate import evaluate
from joker.evaluation.held_out import HeldOut


@pytest.mark.integration
def test_a_model_that_only_copies_is_found_out(
    served_folder: ModelFolder, prepared_folder: Path
) -> None:
    held_out = HeldOut.open(prepared_folder)
    manifest = replace(served_folder.manifest, data={"fingerprint": held_out.facts["fingerprint"]})
    folder = replace(served_folder, manifest=manifest)
    report = evaluate(folder, held_out, EvaluationConfig(generate=24))
    assert report.tries == 24
    assert report.validity
    assert report.validity.value > 0.5
    assert report.generated
    assert report.human
    assert report.generated.copied
    assert report.human.copied
    assert report.generated.copied.value > 0.5 > report.human.copied.value
    assert report.notes == ()


def test_data_that_the_model_was_not_trained_on_is_noted(
    tiny_folder: ModelFolder, prepared_folder: Path
) -> None:
    report = evaluate(tiny_folder, HeldOut.open(prepared_folder), EvaluationConfig(generate=0))
    assert any("trained on other data" in note for note in report.notes)


@pytest.mark.integration
def test_a_file_leaves_originality_out_and_says_so(
    served_folder: ModelFolder, sample_file: Path
) -> None:
    report = evaluate(served_folder, HeldOut.open(sample_file), EvaluationConfig(generate=8))
    assert report.generated
    assert report.generated.copied is None
    assert any("originality needs a prepared folder" in note for note in report.notes)
    assert report.likelihood.retrieval_jokes == 20


def test_jokes_that_the_fingerprints_know_are_reported_apart(
    tiny_folder: ModelFolder, sample_file: Path, sample_jokes: list[Joke], tmp_path: Path
) -> None:
    path = tmp_path / "model"
    shutil.copytree(tiny_folder.path, path)
    Fingerprints.of(sample_jokes[:5]).save(path)
    config = EvaluationConfig(generate=0)
    report = evaluate(ModelFolder.open(path), HeldOut.open(sample_file), config)
    assert report.likelihood.known
    assert report.likelihood.new
    assert (report.likelihood.known.jokes, report.likelihood.new.jokes) == (5, 15)
    assert evaluate(tiny_folder, HeldOut.open(sample_file), config).likelihood.known is None


def test_nothing_is_generated_on_request(tiny_folder: ModelFolder, sample_file: Path) -> None:
    report = evaluate(tiny_folder, HeldOut.open(sample_file), EvaluationConfig(generate=0))
    assert report.tries == 0
    assert report.validity is None
    assert report.generated is report.human is None
    assert report.notes == ()


def test_a_limit_evaluates_a_part(tiny_folder: ModelFolder, sample_file: Path) -> None:
    config = EvaluationConfig(limit=12, retrieval_limit=7, generate=0)
    report = evaluate(tiny_folder, HeldOut.open(sample_file), config)
    assert report.likelihood.jokes == 12
    assert report.likelihood.retrieval_jokes == 7


@pytest.mark.integration
def test_a_folder_without_weights_is_measured_by_its_graph(
    served_folder: ModelFolder, sample_file: Path, tmp_path: Path
) -> None:
    graph_only = tmp_path / "graph-only"
    ignored = shutil.ignore_patterns("model.safetensors")
    shutil.copytree(served_folder.path, graph_only, ignore=ignored)
    held_out, config = HeldOut.open(sample_file), EvaluationConfig(limit=20, generate=0)
    by_weights = evaluate(served_folder, held_out, config)
    by_graph = evaluate(ModelFolder.open(graph_only), held_out, config)
    expected = by_weights.likelihood.bits_per_byte.value
    assert by_graph.likelihood.bits_per_byte.value == pytest.approx(expected, rel=0.02)
    assert "the likelihoods are those of the compressed graph" in by_graph.notes[0]
    assert not by_weights.notes


@pytest.mark.integration
def test_the_same_seed_gives_the_same_report(served_folder: ModelFolder, sample_file: Path) -> None:
    held_out, config = HeldOut.open(sample_file), EvaluationConfig(generate=6)
    assert evaluate(served_folder, held_out, config) == evaluate(served_folder, held_out, config)


def test_both_kinds_of_markers_can_be_evaluated(
    make_tiny_folder: Callable[..., ModelFolder], sample_file: Path
) -> None:
    folder = make_tiny_folder("words")
    report = evaluate(folder, HeldOut.open(sample_file), EvaluationConfig(generate=0))
    assert report.template == "words-plain"
    assert report.likelihood.bits_per_byte.value < 0.5


@pytest.mark.parametrize(
    ("setting", "value"), [("limit", -1), ("generate", -1), ("retrieval_limit", -1), ("seed", -1)]
)
def test_a_setting_out_of_range_is_named(setting: str, value: int) -> None:
    with pytest.raises(ConfigError, match=setting):
        replace(EvaluationConfig(), **{setting: value})
