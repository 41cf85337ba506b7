import importlib
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from joker.core.joke import Joke
from joker.core.template import TEMPLATES
from joker.core.tokenizer import EncodedJoke
from joker.evaluation.likelihood_metrics import ModelScorer, likelihood_metrics
from joker.training import trainer
from joker.training.base_model import keep_blocks, open_base
from joker.training.packing import IGNORE_INDEX, Rows, block_rows, pad_jokes
from joker.training.trainer import (
    JokeTrainer,
    divergences,
    joke_rows,
    token_losses,
    token_losses_at_once,
)

transformers: Any = importlib.import_module("transformers")  # its classes are half typed

# Wide enough initial weights for what a joke sees to make a difference.
TINY: dict[str, Any] = {"vocab_size": 64, "initializer_range": 0.3}
KEEP_APART = {
    "gpt2": transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=64, **TINY),
    "llama": transformers.LlamaConfig(
        num_hidden_layers=4,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=2,
        max_position_embeddings=64,
        **TINY,
    ),
}
LEAK = {
    "opt": transformers.OPTConfig(
        num_hidden_layers=2,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_attention_heads=2,
        max_position_embeddings=64,
        vocab_size=64,
        init_std=0.3,
    ),
    "bloom": transformers.BloomConfig(n_layer=2, hidden_size=32, n_head=2, **TINY),
    "falcon": transformers.FalconConfig(
        num_hidden_layers=2, hidden_size=32, num_attention_heads=2, **TINY
    ),
    "mpt": transformers.MptConfig(n_layers=2, d_model=32, n_heads=2, max_seq_len=64, **TINY),
}
JOKES = [
    EncodedJoke([0, *range(first, first + length - 2), 0], answer_start=length // 2)
    for length, first in ((9, 1), (14, 20), (6, 40), (11, 5), (7, 33))
]


def make(config: Any) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config)


def make_trainer_of(
    model: Any, rows: Rows, folder: Path, precision: torch.dtype = torch.float32
) -> JokeTrainer:
    arguments = TrainingArguments(str(folder), use_cpu=True, report_to=[])
    base = replace(open_base("new:tiny", TEMPLATES["original"], ["Why?"]), model=model)
    return JokeTrainer(base, rows, [], precision, arguments)


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
    model = make(KEEP_APART[name])
    rows = joke_rows([model], JOKES, block_size=32, pad_id=0)
    assert len(rows) < len(JOKES)
    assert loss_of_rows(model, rows.tensors) == pytest.approx(loss_of_jokes(model), rel=1e-5)
    assert not caplog.records


@pytest.mark.parametrize("name", LEAK)
def test_a_model_that_lets_jokes_see_one_another_gets_a_row_for_each(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = make(LEAK[name])
    with caplog.at_level(logging.WARNING):
        rows = joke_rows([model], JOKES, block_size=32, pad_id=0)
    assert "packing is off" in caplog.text
    assert len(rows) == len(JOKES)
    assert loss_of_rows(model, rows.tensors) == pytest.approx(loss_of_jokes(model), rel=1e-5)


def test_trying_a_row_leaves_a_model_in_training() -> None:
    model = make(LEAK["opt"]).train()
    joke_rows([model], JOKES, block_size=32, pad_id=0)
    assert model.training


def test_losses_a_few_rows_at_a_time_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(11, (5, 7), generator=generator)
    labels[:, 3] = IGNORE_INDEX
    found = []
    for at_once in (token_losses_at_once, token_losses):
        monkeypatch.setattr(trainer, "MAX_BATCH_LOGITS", 2 * 7 * 11)
        generator.manual_seed(3)
        logits = torch.randn(5, 7, 11, generator=generator, requires_grad=True)
        losses = at_once(logits, labels)
        total: Any = losses.pow(2).sum()
        total.backward()
        found.append((losses, logits.grad))
    for left, right in zip(*found, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(
    ("precision", "spare_rows"), [(torch.float32, 0), (torch.float32, 16), (torch.bfloat16, 0)]
)
def test_a_teachers_share_of_the_loss_is_its_divergence(
    precision: torch.dtype, spare_rows: int, tmp_path: Path
) -> None:
    model, teacher = (make(KEEP_APART[name]).eval() for name in ("gpt2", "llama"))
    teacher.resize_token_embeddings(64 + spare_rows)
    rows = joke_rows([model, teacher], JOKES, block_size=32, pad_id=0)
    assert len(rows) < len(JOKES)
    joke_trainer = make_trainer_of(model, rows, tmp_path, precision)
    alone = joke_trainer.compute_loss(model, rows.tensors).item()
    joke_trainer.learn_from(teacher, 0.25)
    loss = joke_trainer.compute_loss(model, rows.tensors)
    divergence = count = 0.0
    with torch.no_grad():
        for joke in JOKES:
            ids = torch.tensor([joke.input_ids])
            p, q = (each(ids).logits[0, :-1, :64].softmax(-1) for each in (teacher, model))
            divergence += float((p * (p / q).log()).sum())
            count += len(p)
    rounding = 1e-4 if precision is torch.float32 else 0.02
    expected = 0.75 * alone + 0.25 * divergence / count
    assert loss.item() == pytest.approx(expected, rel=rounding)
    loss.backward()
    assert all(weight.grad is None for weight in teacher.parameters())


def test_a_student_of_its_teacher_comes_closer_to_it_than_one_without(tmp_path: Path) -> None:
    teacher = make(KEEP_APART["llama"]).eval()
    teacher.requires_grad_(False)
    rows = joke_rows([teacher], JOKES, block_size=32, pad_id=0)
    predicted = rows.tensors["labels"][:, 1:] != IGNORE_INDEX
    inputs = {name: rows.tensors[name] for name in ("input_ids", "position_ids")}
    far = {}
    for taught in (False, True):
        student = keep_blocks(make(KEEP_APART["llama"]), 2).requires_grad_()
        joke_trainer = make_trainer_of(student, rows, tmp_path)
        if taught:
            joke_trainer.learn_from(teacher, 0.5)
        optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
        for _ in range(20):
            loss = joke_trainer.compute_loss(student, rows.tensors)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            logits = [each(**inputs).logits for each in (student, teacher)]
        far[taught] = float(divergences(*logits)[predicted].mean())
    assert far[True] < 0.9 * far[False]


@pytest.mark.parametrize("packing", ["padded", "blocks"])
def test_twice_the_weight_is_twice_the_loss(packing: str, tmp_path: Path) -> None:
    model = make(KEEP_APART["gpt2"]).eval()
    heavy = [replace(joke, weight=2.0) for joke in JOKES]
    rows = block_rows(heavy, 8) if packing == "blocks" else pad_jokes(heavy, 32, 0)
    joke_trainer = make_trainer_of(model, rows, tmp_path)
    loss = joke_trainer.compute_loss(model, rows.tensors).item()
    predicted = int((rows.tensors["labels"][:, 1:] != IGNORE_INDEX).sum())
    assert loss == pytest.approx(2 * loss_of_rows(model, rows.tensors) / predicted, rel=1e-5)


def test_an_evaluation_measures_bits_per_byte_as_the_test_does(tmp_path: Path) -> None:
    jokes = [
        Joke(f"Why did the {thing} leave the shed?", f"It was no {thing} any more.")
        for thing in ("ladder", "bucket", "old garden hose")
    ]
    too_long = Joke("Why?", ("Because. " * 200).strip())
    base = open_base("new:tiny", TEMPLATES["original"], [joke.question for joke in jokes])
    rows = pad_jokes([base.joke_tokenizer.encode(joke) for joke in jokes], 128, 0)
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    joke_trainer = JokeTrainer(base, rows, [*jokes, too_long], torch.float32, arguments)
    found = joke_trainer.evaluate()
    scorer = ModelScorer(base.model, base.joke_tokenizer)
    expected = likelihood_metrics(scorer, base.context_length, jokes, seed=1, retrieval_limit=0)
    assert found["eval_bits_per_byte"] == pytest.approx(expected.bits_per_byte.value, rel=1e-6)
    assert found["eval_loss"] == pytest.approx(math.log(expected.perplexity.value), rel=1e-6)
    (report,) = joke_trainer.state.log_history
    assert report["eval_loss"] == found["eval_loss"]
