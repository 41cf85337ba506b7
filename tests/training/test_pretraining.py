import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from joker.core.errors import ConfigError
from joker.core.fingerprints import Fingerprints
from joker.core.model_folder import ModelFolder
from joker.data.prepared import PreparedData
from joker.training.pretraining_config import PretrainingConfig, parse_shares

Command = Callable[..., subprocess.Popen[str]]

STEPS = 24
SMALL = ("--size", "tiny", "--block-size", "32", "--batch-size", "2", "--accumulation", "1")
SHORT = (*SMALL, "--budget", str(STEPS * 64), "--compile", "never", "--final-mixture", "jokes=1")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    tales = [
        f"The {colour} harbour slept while {count} gulls argued about the weather."
        for colour in ("blue", "grey", "silver", "white")
        for count in range(40)
    ]
    lines = "".join(json.dumps({"text": tale}) + "\n" for tale in tales)
    (folder / "tales.jsonl").write_text(lines)
    return folder


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for a process, check its exit code and return what it wrote to standard error."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    return errors


@pytest.mark.integration
def test_killed_run_goes_on_to_the_same_weights_with_kept_tokens(
    start: Command, texts: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    common = ("pretrain", *SHORT, "--text", texts, "--jokes", prepared.path, "--tokens", "tokens")
    finish(start(*common, "--out", "whole"))
    arguments = (*common, "--out", "killed", "--checkpoint-minutes", "0")
    process = start(*arguments)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / "checkpoints").glob("checkpoint-*/complete")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "joker.json").exists()
    finish(start(*arguments, "--resume"))
    whole, killed = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed")
    )
    assert whole.keys() == killed.keys()
    assert all(whole[name].equal(killed[name]) for name in whole)

    folder = ModelFolder.open(tmp_path / "killed")
    assert not (folder.path / "checkpoints").exists()
    assert folder.manifest.base_model == "new:tiny"
    assert folder.manifest.training["passes"].keys() == {"jokes", "tales"}
    assert folder.manifest.metrics["bits_per_byte"] > 0
    assert folder.manifest.metrics["mfu"] > 0


@pytest.mark.integration
def test_pretrained_folder_is_a_base_for_fine_tuning_in_16_bits(
    start: Command, texts: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    finish(
        start(
            *("pretrain", *SHORT, "--text", texts, "--jokes", prepared.path),
            *("--out", "base", "--optimizer", "adamw", "--weights", "float16"),
        )
    )
    weights = load_file(tmp_path / "base" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float16"}
    finish(
        start(
            *("train", "--base", "base", "--data", prepared.path, "--out", "model"),
            *("--max-steps", "2", "--compile", "never", "--batch-size", "2"),
        )
    )
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    trained = load_file(tmp_path / "model" / "model.safetensors")
    assert {name: tensor.shape for name, tensor in trained.items()} == shapes


@pytest.mark.integration
def test_pretraining_goes_on_from_a_folder_with_its_tokenizer(
    start: Command, texts: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    common = ("pretrain", *SHORT, "--text", texts, "--jokes", prepared.path, "--tokens", "tokens")
    finish(start(*common, "--out", "base"))
    finish(start(*common, "--out", "model", "--base", "base", "--seed", "2"))
    base, model = (ModelFolder.open(tmp_path / name) for name in ("base", "model"))
    assert model.manifest.base_model == "base"
    assert model.manifest.earlier == [base.manifest.training]
    assert (base.path / "tokenizer.json").read_text() == (model.path / "tokenizer.json").read_text()
    assert model.manifest.metrics["bits_per_byte"] < base.manifest.metrics["bits_per_byte"]
    card = (model.path / "README.md").read_text()
    assert card.index("What it read from scratch") < card.index("What it read next")
    before, after = (Fingerprints.read(folder.path) for folder in (base, model))
    assert before is not None
    assert after is not None
    assert (before.sketches == after.sketches).all()

    wide = ("--block-size", "999", "--budget", "10k")
    errors = finish(start(*common, "--out", "wide", "--base", "base", *wide), code=2)
    assert "base looks at 128 tokens" in errors


@pytest.mark.integration
def test_mixture_of_an_unknown_source_is_one_sentence(
    start: Command, texts: Path, prepared: PreparedData
) -> None:
    common = ("pretrain", *SMALL, "--budget", "10k", "--text", texts, "--jokes", prepared.path)
    errors = finish(start(*common, "--out", "model", "--mixture", "jokes=1 novels=2"), code=2)
    assert "'novels'" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("budget", "tokens"),
    [("500k", 500_000), ("1.5M", 1_500_000), ("2B", 2 * 10**9), ("70,000", 70_000)],
)
def test_budget_is_a_number_of_tokens(budget: str, tokens: int) -> None:
    assert PretrainingConfig(budget=budget).budget_tokens == tokens


@pytest.mark.parametrize("budget", ["", "many", "5G", "-3M", "100"])
def test_budget_that_makes_no_step_is_refused(budget: str) -> None:
    with pytest.raises(ConfigError, match="budget"):
        PretrainingConfig(budget=budget)


def test_tokens_of_each_source_follow_both_mixtures() -> None:
    config = PretrainingConfig(
        budget="1M", decay=0.4, mixture="jokes=1 books=3", final_mixture="jokes=1"
    )
    assert config.tokens_kept == pytest.approx({"jokes": 550_000, "books": 450_000})
    assert PretrainingConfig().tokens_kept is None


def test_more_tokens_can_be_kept_than_are_read() -> None:
    config = PretrainingConfig(budget="1M", mixture="jokes=1 books=1", kept="books=2.5M")
    assert config.tokens_kept == pytest.approx({"jokes": 500_000, "books": 2_500_000})


@pytest.mark.parametrize("kept", ["books", "books=", "=1M", "books=-1", "books=many"])
def test_malformed_kept_is_refused(kept: str) -> None:
    with pytest.raises(ConfigError, match="'kept'"):
        PretrainingConfig(mixture="jokes=1", kept=kept)


def test_kept_without_a_mixture_is_refused() -> None:
    with pytest.raises(ConfigError, match="'mixture'"):
        PretrainingConfig(kept="books=1M")


@pytest.mark.parametrize("text", ["jokes", "jokes=", "=1", "jokes=-1", "jokes=nan", "jokes=0"])
def test_malformed_mixture_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="mixture"):
        parse_shares(text)


@pytest.mark.parametrize(
    "settings",
    [
        {"warmup": 0.7},
        {"decay": -0.1},
        {"learning_rate": 0.0},
        {"batch_size": 0},
        {"dropout": 1.0},
        {"layers": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        PretrainingConfig(**settings)  # type: ignore[arg-type]
