import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, TrainingArguments

from joker.core.tokenizer import EncodedJoke
from joker.training import trainer
from joker.training.packing import IGNORED, block_rows, pad_jokes
from joker.training.trainer import JokeTrainer, joke_rows, token_losses, token_losses_at_once

SHAPE: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
KEEP_APART: dict[str, dict[str, Any]] = {
    "gpt2": {**SHAPE, "n_positions": 64},
    "llama": {**SHAPE, "intermediate_size": 64},
}
LEAK: dict[str, dict[str, Any]] = {
    "opt": {**SHAPE, "ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3},
    "bloom": SHAPE,
    "falcon": SHAPE,
    "mpt": SHAPE,
}
JOKES = [
    EncodedJoke([0, *range(first, first + length - 2), 0], answer_start=length // 2)
    for length, first in ((9, 1), (14, 20), (6, 40), (11, 5), (7, 33))
]


def make(architecture: str) -> Any:
    """Return a random model, its weights wide enough for what a joke sees to make a difference."""
    torch.manual_seed(0)
    shape = {**KEEP_APART, **LEAK}[architecture]
    config: Any = AutoConfig.for_model(
        architecture, **{"vocab_size": 64, "initializer_range": 0.3, **shape}
    )
    loader: Any = AutoModelForCausalLM  # untyped
    return loader.from_config(config)


def loss_of_rows(model: Any, tensors: dict[str, torch.Tensor]) -> float:
    names = ("input_ids", "position_ids")
    inputs = {name: tensors[name] for name in names if name in tensors}
    with torch.no_grad():
        return float(token_losses(model.eval()(**inputs).logits, tensors["labels"]).sum())


def loss_of_jokes(model: Any) -> float:
    ids = [torch.tensor([joke.input_ids]) for joke in JOKES]
    with torch.no_grad():
        return sum(float(token_losses(model.eval()(each).logits, each).sum()) for each in ids)


@pytest.mark.parametrize("name", KEEP_APART)
def test_a_model_that_keeps_jokes_apart_gets_packed_rows(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = make(name)
    rows = joke_rows(model, JOKES, block_size=32, pad_id=0)
    assert len(rows) < len(JOKES)
    assert loss_of_rows(model, rows.tensors) == pytest.approx(loss_of_jokes(model), rel=1e-5)
    assert not caplog.records


@pytest.mark.parametrize("name", LEAK)
def test_a_model_that_lets_jokes_see_one_another_gets_a_row_for_each(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = make(name)
    with caplog.at_level(logging.WARNING):
        rows = joke_rows(model, JOKES, block_size=32, pad_id=0)
    assert "row of its own" in caplog.text
    assert len(rows) == len(JOKES)
    assert loss_of_rows(model, rows.tensors) == pytest.approx(loss_of_jokes(model), rel=1e-5)


def test_trying_a_row_leaves_a_model_in_training() -> None:
    model = make("opt").train()
    joke_rows(model, JOKES, block_size=32, pad_id=0)
    assert model.training


def test_losses_a_few_rows_at_a_time_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(11, (5, 7), generator=generator)
    labels[:, 3] = IGNORED
    found = []
    for at_once in (token_losses_at_once, token_losses):
        monkeypatch.setattr(trainer, "_LOGITS_AT_ONCE", 2 * 7 * 11)
        generator.manual_seed(3)
        logits = torch.randn(5, 7, 11, generator=generator, requires_grad=True)
        losses = at_once(logits, labels)
        found.append((losses, *torch.autograd.grad(losses.pow(2).sum(), logits)))
    for left, right in zip(*found, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("packing", ["padded", "blocks"])
def test_twice_the_weight_is_twice_the_loss(packing: str, tmp_path: Path) -> None:
    model = make("gpt2").eval()
    heavy = [replace(joke, weight=2.0) for joke in JOKES]
    rows = block_rows(heavy, 8) if packing == "blocks" else pad_jokes(heavy, 32, 0)
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    joke_trainer = JokeTrainer(autocast=torch.float32, model=model, args=arguments)
    loss = joke_trainer.compute_loss(model, rows.tensors).item()
    predicted = int((rows.tensors["labels"][:, 1:] != IGNORED).sum())
    assert loss == pytest.approx(2 * loss_of_rows(model, rows.tensors) / predicted, rel=1e-5)
