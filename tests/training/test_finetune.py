import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from joker.core.joke import Joke, Sampling
from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import JokeTokenizer
from joker.data.prepared import PreparedData
from joker.training.base_model import open_base
from joker.training.callbacks import CheckpointCallback, evaluation_interval
from joker.training.finetune import sample_jokes
from tests.command import joker

pytestmark = [
    pytest.mark.integration,
    # MLflow's own code is not free of warnings.
    pytest.mark.filterwarnings("default"),
]

Command = Callable[..., subprocess.Popen[str]]

TRAIN = ("train", "--base", "new:tiny", "--compile", "never", "--batch-size", "2")
SHORT = (*TRAIN, "--gradient-accumulation-steps", "1", "--max-steps", "30")


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for a process, check its exit code and return what it wrote to standard error."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    return errors


def train(*arguments: object, code: int = 0) -> str:
    """Run ``joker train`` in this process, as `finish` waits for one of its own."""
    done = joker(*arguments)
    assert done.returncode == code, done.stderr
    return done.stderr


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def same_weights(left: Path, right: Path) -> bool:
    first, second = (load_file(path / "model.safetensors") for path in (left, right))
    return first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)


def statuses(folder: Path) -> list[str]:
    """Return how the runs in a folder's ``mlflow.db`` ended, oldest first."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        rows = store.execute("SELECT status FROM runs ORDER BY start_time")
        return [status for (status,) in rows]


@pytest.fixture(scope="module")
def uninterrupted(prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model folder of `SHORT`, trained without a break."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        train(*SHORT, "--data", prepared.path, "--out", "model")
    return folder / "model"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C once, when the first checkpoint is there."""
    save = CheckpointCallback.on_save
    pressed: list[int] = []

    def save_and_press(*arguments: Any, **options: Any) -> None:
        save(*arguments, **options)
        if not pressed:
            pressed.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(CheckpointCallback, "on_save", save_and_press)


def test_training_writes_a_folder_that_describes_itself(
    uninterrupted: Path, prepared: PreparedData
) -> None:
    folder = ModelFolder.open(uninterrupted)
    manifest = folder.manifest
    assert manifest.template.label == "original-special"
    assert manifest.data["fingerprint"] == prepared.manifest.fingerprint
    assert manifest.training["learning_rate"] == 1e-3
    assert manifest.packages["torch"]
    assert manifest.metrics["bits_per_byte"] > 0
    assert "bits_per_byte" in (folder.path / "README.md").read_text(encoding="utf-8")
    assert not (folder.path / "checkpoints").exists()
    tokenizer = JokeTokenizer.from_folder(folder.path, manifest.template)
    joke = Joke("Why did the teapot leave?", "It was time.")
    assert tokenizer.parse(tokenizer.encode(joke).input_ids) == joke


def test_a_killed_training_goes_on_to_the_same_weights(
    prepared: PreparedData, start: Command, tmp_path: Path, uninterrupted: Path
) -> None:
    options = ("--data", prepared.path, "--out", "model")
    process = start(*SHORT, *options, "--checkpoint-minutes", "0", "--report-to", "none")
    wait_for(lambda: len(list(tmp_path.glob("model/checkpoints/*/complete"))) > 0, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # A kill in the middle of writing leaves a checkpoint without its mark.
    (tmp_path / "model/checkpoints/checkpoint-29").mkdir(exist_ok=True)
    assert not (tmp_path / "model/joker.json").exists()

    train("train", *options, "--resume")
    assert same_weights(tmp_path / "model", uninterrupted)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_a_checkpoint_that_resume_takes_up(
    prepared: PreparedData, tmp_path: Path, uninterrupted: Path
) -> None:
    options = ("--data", prepared.path, "--out", "model")
    said = train(*SHORT, *options, "--checkpoint-minutes", "0", code=130)
    assert "--resume" in said
    assert "Traceback" not in said
    assert statuses(tmp_path) == ["KILLED"]

    assert "unfinished" in train(*SHORT, *options, code=2)
    train("train", *options, "--resume")
    assert same_weights(tmp_path / "model", uninterrupted)
    assert statuses(tmp_path) == ["KILLED", "FINISHED"]


def test_mlflow_shows_how_a_training_went(uninterrupted: Path, prepared: PreparedData) -> None:
    with closing(sqlite3.connect(uninterrupted.parent / "mlflow.db")) as store:
        measured = "SELECT max(step) FROM metrics WHERE key = 'eval_bits_per_byte'"
        assert store.execute(measured).fetchone() == (30,)
        assert store.execute("SELECT count(*) FROM metrics WHERE key = 'loss'").fetchone() == (4,)
        parameters = dict(store.execute("SELECT key, value FROM params"))
        inputs = store.execute("SELECT name, digest FROM datasets ORDER BY name").fetchall()
    assert parameters["learning_rate"] == "0.001"  # Transformers' own callback
    assert parameters["training.template"] == "original"
    parts = ("test", "training", "validation")
    assert [name for name, _ in inputs] == [f"{prepared.path.name}-{part}" for part in parts]
    assert len({digest for _, digest in inputs}) == 3
    metrics = ModelFolder.open(uninterrupted).manifest.metrics
    assert metrics["validation_bits_per_byte"] > 0
    assert 0 < metrics["evaluation_share"] < 1
    assert (uninterrupted / "loss.png").stat().st_size > 0
    (registered,) = uninterrupted.parent.glob("mlruns/**/artifacts/artifacts/model")
    assert {path.name for path in registered.iterdir()} > {"joker.json", "model.safetensors"}
    assert not (registered / "checkpoints").exists()


@pytest.mark.parametrize("options", [[], ["--critic"]], ids=["without", "with"])
def test_a_critic_is_trained_only_if_asked_for(
    options: list[str], prepared: PreparedData, tmp_path: Path
) -> None:
    rated = tmp_path / "rated.csv"
    rated.write_text("question,answer,score\nWhy is a table?,Because.,0\n", encoding="utf-8")
    train(
        *(*TRAIN, "--data", prepared.path, "--out", "model", "--max-steps", "1"),
        *("--report-to", "none", "--preferences", rated, *options),
    )
    folder = ModelFolder.open(tmp_path / "model")
    tokenizer = JokeTokenizer.from_folder(folder.path, folder.manifest.template)
    assert tokenizer.has_critic is bool(options)
    assert folder.manifest.training["jokes_rated"] == 1


def test_a_tracking_server_that_is_down_ends_a_training_before_it_begins(
    prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    options = ("--data", prepared.path, "--out", "model")
    said = train(*SHORT, *options, code=2)
    assert "MLFLOW_TRACKING_URI" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("model/checkpoints/checkpoint-*"))
    train(*SHORT[:-1], "2", *options, "--report-to", "none")
    assert (tmp_path / "model/joker.json").is_file()


def test_sample_jokes_disturb_no_training(tiny_folder: ModelFolder) -> None:
    base = open_base(str(tiny_folder.path), tiny_folder.manifest.template, [])
    base.model.train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    jokes = sample_jokes(base, seed=1)
    assert torch.rand(3).equal(expected)
    assert base.model.training
    assert jokes == sample_jokes(base, seed=1)
    assert len(jokes) > 0
    greedy = sample_jokes(base, seed=1, sampling=Sampling(temperature=0.0))
    assert len(set(greedy)) == 1


def test_evaluations_are_as_often_as_a_twentieth_of_the_arithmetic_allows() -> None:
    assert evaluation_interval(1000, tokens_per_step=4000, validation_tokens=3000) == 50
    # An evaluation that costs five steps comes after a hundred.
    assert evaluation_interval(1000, tokens_per_step=1000, validation_tokens=15_000) == 100
    assert evaluation_interval(3, tokens_per_step=4000, validation_tokens=30) == 1


@pytest.fixture
def _small_disk() -> Iterator[None]:
    """Let no file grow beyond 300 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("_small_disk")
@pytest.mark.parametrize("report_to", ["mlflow", "none"])
def test_a_full_disk_is_one_sentence(prepared: PreparedData, report_to: str) -> None:
    options = ("--data", prepared.path, "--out", "model", "--report-to", report_to)
    said = train(*SHORT, *options, code=4)
    assert "disk" in said
    assert "Traceback" not in said


@pytest.mark.long
def test_two_processes_train_like_one_with_twice_the_batch(
    prepared: PreparedData, start: Command, tmp_path: Path
) -> None:
    options = (
        *TRAIN[:-2],
        "--precision",
        "float32",
        "--gradient-accumulation-steps",
        "1",
        "--max-steps",
        "30",
        "--data",
        prepared.path,
    )
    launch = ("--standalone", "--nproc-per-node", "2", "--module", "joker")
    two = start(
        *launch, *options, "--out", "two", "--batch-size", "2", module="torch.distributed.run"
    )
    finish(two)
    finish(start(*options, "--out", "one", "--batch-size", "4"))

    database = sqlite3.connect(tmp_path / "mlflow.db")
    runs = [name for (name,) in database.execute("SELECT name FROM runs ORDER BY start_time")]
    assert runs == ["two", "one"]  # the second process told MLflow nothing
    told: dict[str, dict[tuple[str, int], float]] = {"one": {}, "two": {}}
    for name, key, step, value in database.execute(
        "SELECT runs.name, key, step, value FROM metrics JOIN runs USING (run_uuid) "
        "WHERE key IN ('loss', 'answer_loss')"
    ):
        told[name][key, step] = value
    database.close()
    assert len(told["one"]) == 8
    assert told["two"] == pytest.approx(told["one"], rel=1e-3)
    folders = [ModelFolder.open(tmp_path / name) for name in ("two", "one")]
    assert [folder.manifest.training["processes"] for folder in folders] == [2, 1]
    two_weights, one_weights = (
        torch.cat([tensor.flatten() for _, tensor in sorted(load_file(path).items())])
        for path in (folder.path / "model.safetensors" for folder in folders)
    )
    assert float((two_weights - one_weights).norm() / one_weights.norm()) < 0.01


@pytest.mark.long
def test_the_original_recipe_trains_on_blocks_with_plain_markers(
    prepared: PreparedData, start: Command, tmp_path: Path
) -> None:
    options = ("--base", "new:tiny", "--max-steps", "3", "--data", prepared.path, "--out", "model")
    finish(start("train", "--recipe", "original", *options))
    folder = ModelFolder.open(tmp_path / "model")
    assert folder.manifest.template.label == "original-plain"
    assert folder.manifest.training["packing"] == "blocks"
    assert json.loads((folder.path / "config.json").read_text())["vocab_size"] == 1024


def test_a_trained_folder_is_a_base(
    prepared: PreparedData, tmp_path: Path, uninterrupted: Path
) -> None:
    options = ("--max-steps", "2", "--data", prepared.path, "--out", "model", "--compile", "never")
    layout = ("--template", "separator", "--report-to", "none")
    train("train", "--base", uninterrupted, *layout, *options)
    assert ModelFolder.open(tmp_path / "model").manifest.template.name == "separator"


@pytest.mark.usefixtures("ctrl_c")
def test_a_smaller_student_of_a_teacher_goes_on_after_a_break(
    prepared: PreparedData, tmp_path: Path, uninterrupted: Path
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "deep")
    (tmp_path / "deep/joker.json").unlink()
    deep: Any = GPT2LMHeadModel  # untyped
    deep(GPT2Config.from_pretrained(uninterrupted, n_layer=5)).save_pretrained(tmp_path / "deep")
    student = (*SHORT, "--base", "deep", "--keep-layers", "3", "--freeze-layers", "1")
    options = ("--teacher", uninterrupted, "--data", prepared.path, "--report-to", "none")
    train(*student, *options, "--out", "broken", "--checkpoint-minutes", "0", code=130)
    train("train", "--data", prepared.path, "--out", "broken", "--resume")
    train(*student, *options, "--out", "whole")
    assert same_weights(tmp_path / "broken", tmp_path / "whole")
    config = json.loads((tmp_path / "whole/config.json").read_text())
    assert config["n_layer"] == 3
    first = "transformer.h.0.mlp.c_fc.weight"
    frozen, source = (
        load_file(tmp_path / name / "model.safetensors")[first] for name in ("whole", "deep")
    )
    assert frozen.equal(source)


@pytest.mark.long
def test_a_compiled_training_gives_a_working_model(
    prepared: PreparedData, start: Command, tmp_path: Path
) -> None:
    options = ("--data", prepared.path, "--out", "model", "--max-steps", "2")
    finish(start("train", "--base", "new:tiny", "--compile", "always", *options))
    assert ModelFolder.open(tmp_path / "model").manifest.training["compiled"] is True
