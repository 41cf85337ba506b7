import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from joker.core.config import read_config_file
from joker.core.errors import ConfigError, ModelFolderError
from joker.core.model_folder import ModelFolder, bundled_model
from joker.data.prepared import PreparedData
from joker.training.config import TrainingConfig
from joker.training.pretraining_config import PretrainingConfig
from joker.training.stages import read_stages

Command = Callable[..., subprocess.Popen[str]]

CONFIGS = Path(__file__).parents[2] / "configs"

THREE = """\
stages:
  - pretrain: {size: tiny, layers: 1, budget: 2k, block_size: 32, batch_size: 2, accumulation: 1,
               compile: never, checkpoint_minutes: 0}
  - pretrain: {layers: 2, budget: 1k, block_size: 32, batch_size: 2, accumulation: 1,
               compile: never, test_limit: 20, seed: 2}
  - train: {max_steps: 2, batch_size: 2, accumulation: 1, compile: never, test_limit: 20}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "stages.yaml"
    path.write_text(text)
    return path


def test_each_stage_has_the_settings_of_its_kind(tmp_path: Path) -> None:
    first, second, third = read_stages(write(tmp_path, THREE))
    assert [first.name, second.name, third.name] == ["1-pretrain", "2-pretrain", "3-train"]
    assert isinstance(first.config, PretrainingConfig)
    assert first.config.size == "tiny"
    assert isinstance(second.config, PretrainingConfig)
    assert second.config.layers == 2
    assert isinstance(third.config, TrainingConfig)
    assert third.config.max_steps == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("budget: 1M", "stages"),
        ("stages: []", "stages"),
        ("stages: 3", "stages"),
        ("stages: [{train: {}}]\nout: here", "stages"),
        ("stages: [train]", "stage 1"),
        ("stages: [{train: {}, pretrain: {}}]", "stage 1"),
        ("stages: [{train: 3}]", "stage 1"),
        ("stages: [{pretrain: {}}, {export: {}}]", "stage 2 .* 'export'"),
        ("stages: [{pretrain: {}}, {train: {speed: 3}}]", "stage 2: .*'speed'"),
        ("stages: [{pretrain: {}}, {train: {base: distilgpt2}}]", "stage 2 .* 'base'"),
        ("stages: [{pretrain: {size: small}}, {pretrain: {layers: 9}}]", "stage 2: .* 6 blocks"),
        (
            "stages: [{pretrain: {layers: 2}}, {train: {}}, {pretrain: {layers: 4}}, "
            "{pretrain: {}}, {pretrain: {layers: 6}}]",
            "stage 5: .* 4 blocks",
        ),
    ],
)
def test_malformed_stages_are_refused_by_number(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=named):
        read_stages(write(tmp_path, text))


def test_a_size_that_there_is_not_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="huge"):
        read_stages(write(tmp_path, "stages: [{pretrain: {size: huge}}]"))


def test_depth_on_a_base_not_yet_opened_is_left_to_the_training(tmp_path: Path) -> None:
    named = "stages: [{pretrain: {base: distilgpt2}}, {pretrain: {layers: 9}}]"
    assert len(read_stages(write(tmp_path, named))) == 2
    grown = "stages: [{train: {base: distilgpt2}}, {pretrain: {layers: 12}}]"
    assert len(read_stages(write(tmp_path, grown))) == 2


def test_file_of_the_bundled_model_says_what_made_it() -> None:
    manifest = ModelFolder.open(bundled_model()).manifest
    trainings = [*manifest.earlier, manifest.training]
    stages = read_stages(CONFIGS / "bundled.yaml")
    for stage, training in zip(stages, trainings, strict=True):
        # A setting that came to be after the model had what is now its default.
        made_with = type(stage.config)().to_dict() | training
        for name, value in stage.config.to_dict().items():
            if name != "base":  # which is called by a path
                assert made_with[name] == value, (stage.name, name)


@pytest.mark.integration
def test_stages_cut_short_go_on_and_are_not_made_twice(
    start: Command, prepared: PreparedData, tmp_path: Path
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    tales = [f"The harbour slept while {count} gulls argued." for count in range(200)]
    (texts / "tales.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in tales))
    command = ("build", write(tmp_path, THREE), "--text", texts, "--jokes", prepared.path)

    process = start(*command, "--out", "built")
    deadline = time.monotonic() + 120
    first = tmp_path / "built" / "1-pretrain"
    while not list((first / "checkpoints").glob("checkpoint-*/complete")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert "joker build" in errors
    assert not (first / "joker.json").exists()

    output, errors = start(*command, "--out", "built").communicate(timeout=300)
    last = ModelFolder.open(tmp_path / "built" / "3-train")
    assert str(last.openvino.relative_to(tmp_path)) in output, errors
    assert [training["layers"] for training in last.manifest.earlier] == [1, 2]
    assert read_config_file(last.path / "config.json")["n_layer"] == 2
    assert "0.2 million parameters" in (last.path / "README.md").read_text()  # as it has grown
    assert last.has_openvino
    corpora = sorted(path.name for path in (tmp_path / "built").glob("*-tokens"))
    assert corpora == ["1-pretrain-tokens"]  # read by both

    made = (first / "joker.json").stat().st_mtime_ns
    process = start(*command, "--out", "built")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "3-train: there already" in errors
    assert (first / "joker.json").stat().st_mtime_ns == made

    write(tmp_path, THREE.replace("max_steps: 2", "max_steps: 3"))
    process = start(*command, "--out", "built")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "max_steps 2" in errors
    assert "Traceback" not in errors
