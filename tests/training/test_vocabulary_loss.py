import importlib
import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from joker.training import vocabulary_loss
from joker.training.vocabulary_loss import VocabularyLoss, pass_hidden_states

transformers: Any = importlib.import_module("transformers")  # untyped
SHAPE = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 50}

PLACES, WIDTH, ENTRIES = 300, 32, 900

Gradients = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_loss, "_CHUNK", 128)
    monkeypatch.setattr(vocabulary_loss, "_BLOCK", 100)


def problem(sharpness: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return hidden states, an output matrix and labels; the sharper the surer the model is."""
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(PLACES, WIDTH, generator=draw) + 1
    weight = torch.randn(ENTRIES, WIDTH, generator=draw) * sharpness / math.sqrt(WIDTH)
    labels = torch.randint(0, ENTRIES, (PLACES,), generator=draw)
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def gradients(
    total: torch.Tensor, hidden: torch.Tensor, weight: torch.Tensor, scale: float = 1.0
) -> Gradients:
    into_hidden, into_weight = torch.autograd.grad(total * scale, (hidden, weight))
    return into_hidden, into_weight


def error(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found - right).norm() / right.norm())


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.integration, id="compiled")]
)
def test_loss_and_gradients_are_those_of_cross_entropy_where_nothing_is_filtered(
    compiled: bool,
) -> None:
    hidden, weight, labels = problem(sharpness=2)
    right = functional.cross_entropy(hidden @ weight.T, labels, reduction="none")
    total, losses = VocabularyLoss(compiled=compiled, threshold=0)(hidden, weight, labels)
    torch.testing.assert_close(losses, right)
    torch.testing.assert_close(total, right.sum())
    exact = gradients(right.sum(), hidden, weight, scale=1 / 7)
    for found, wanted in zip(gradients(total, hidden, weight, 1 / 7), exact, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("sharpness", [0.1, 0.5, 1, 2])
def test_the_rest_by_its_sums_is_nearer_to_the_exact_gradients_than_the_rest_left_out(
    sharpness: float,
) -> None:
    hidden, weight, labels = problem(sharpness)
    logits = hidden @ weight.T
    right = functional.cross_entropy(logits, labels, reduction="sum")
    into_hidden, into_weight = gradients(right, hidden, weight)

    threshold = 0.02
    total, losses = VocabularyLoss(compiled=False, threshold=threshold)(hidden, weight, labels)
    found_hidden, found_weight = gradients(total, hidden, weight)
    assert float(losses.sum()) == pytest.approx(float(right.detach()))

    with torch.no_grad():
        errors = logits.softmax(1) - functional.one_hot(labels, ENTRIES)
        for here in torch.split(errors, 128):
            here[:, here.abs().amax(0) < threshold] = 0
        left_out_hidden, left_out_weight = errors @ weight, errors.T @ hidden
    assert error(found_hidden, into_hidden) < error(left_out_hidden, into_hidden)
    assert error(found_weight, into_weight) < 0.5 * error(left_out_weight, into_weight)
    # What all places have in common, where the filter alone errs most, is exact.
    torch.testing.assert_close(found_hidden.sum(0), into_hidden.sum(0), rtol=1e-4, atol=1e-4)


def test_bfloat16_products_stay_near_the_exact_gradients() -> None:
    hidden, weight, labels = problem(sharpness=1)
    right = functional.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    total, _ = VocabularyLoss(compiled=False)(hidden.bfloat16(), weight, labels)
    assert float(total.detach()) == pytest.approx(float(right.detach()), rel=1e-3)
    pairs = zip(gradients(total, hidden, weight), gradients(right, hidden, weight), strict=True)
    assert all(error(found, wanted) < 0.01 for found, wanted in pairs)


def test_no_places_have_no_loss_and_no_gradients() -> None:
    hidden, weight, labels = problem(sharpness=1)
    total, losses = VocabularyLoss(compiled=False)(hidden[:0], weight, labels[:0])
    assert float(total.detach()) == 0
    assert len(losses) == 0
    assert not gradients(total, hidden, weight)[1].any()


def test_a_model_with_plain_logits_hands_hidden_states_on_only_while_it_trains() -> None:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**SHAPE))
    ids = torch.arange(8)[None]
    before = model.eval()(input_ids=ids).logits
    head = pass_hidden_states(model)
    assert head is not None
    assert head.weight is model.get_input_embeddings().weight
    torch.testing.assert_close(model(input_ids=ids).logits, before)
    assert model.train()(input_ids=ids).logits.shape == (1, 8, 16)


def test_a_model_whose_logits_have_a_bias_keeps_its_head() -> None:
    model = transformers.GPTJForCausalLM(transformers.GPTJConfig(**SHAPE, rotary_dim=4))
    assert pass_hidden_states(model) is None
    assert model.train()(input_ids=torch.arange(8)[None]).logits.shape == (1, 8, 50)


def test_a_model_that_changes_its_logits_afterwards_keeps_its_head() -> None:
    class Scaled(transformers.GPT2LMHeadModel):  # type: ignore[misc]
        def forward(self, *arguments: Any, **options: Any) -> Any:
            outputs = super().forward(*arguments, **options)
            outputs.logits = outputs.logits * 2
            return outputs

    model = Scaled(transformers.GPT2Config(**SHAPE))
    assert pass_hidden_states(model) is None
