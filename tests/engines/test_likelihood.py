from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from joker.core.model_folder import ModelFolder
from joker.engines import weights
from joker.engines.weights import load_causal_lm, token_log_probabilities


class Bigrams(torch.nn.Module):
    """A model whose next token depends on the last one alone, by a table of probabilities."""

    def __init__(self, probabilities: list[list[float]]) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.tensor(probabilities).log())
        self.dropout = torch.nn.Dropout(0.5)
        self.embeddings = torch.nn.Embedding(len(probabilities), 1)
        self.shapes: list[tuple[int, ...]] = []

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.embeddings

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        self.shapes.append(tuple(input_ids.shape))
        return SimpleNamespace(logits=self.dropout(self.table)[input_ids])


def bigrams() -> Any:
    return Bigrams(TABLE)


TABLE = [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.1, 0.2, 0.7]]


def test_tokens_have_the_probabilities_of_the_table() -> None:
    (scores,) = token_log_probabilities(bigrams(), [[0, 1, 1, 2, 0]])
    assert np.exp(scores) == pytest.approx([0.25, 0.75, 0.125, 0.1])


def test_scores_return_in_the_order_of_the_sequences() -> None:
    sequences = [[0, 1, 2], [2, 2], [1], [0, 0, 0, 0], [1, 2, 1]]
    scores = token_log_probabilities(bigrams(), sequences, batch_tokens=6)
    expected = [
        [math.log(TABLE[left][right]) for left, right in pairwise(ids)] for ids in sequences
    ]
    assert [list(each) for each in scores] == [pytest.approx(each) for each in expected]


def test_a_large_vocabulary_makes_batches_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_BATCH_LOGITS", 12 * len(TABLE))
    model = bigrams()
    token_log_probabilities(model, [[0, 1, 2]] * 9)
    assert model.shapes == [(4, 3), (4, 3), (1, 3)]


def test_no_sequences_have_no_scores() -> None:
    assert token_log_probabilities(bigrams(), []) == []


@pytest.mark.parametrize("batch_tokens", [1, 40, 100_000])
def test_a_batch_changes_no_score(tiny_folder: ModelFolder, batch_tokens: int) -> None:
    model = load_causal_lm(tiny_folder, "cpu")
    generator = np.random.default_rng(5)
    sequences = [generator.integers(500, size=n).tolist() for n in (7, 128, 2, 31, 31, 90)]
    batched = token_log_probabilities(model, sequences, batch_tokens=batch_tokens)
    for ids, scores in zip(sequences, batched, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].double()
        alone = logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]]
        assert scores == pytest.approx(alone.numpy(), abs=1e-4)


def test_sixteen_bit_floats_come_close(tiny_folder: ModelFolder) -> None:
    model = load_causal_lm(tiny_folder, "cpu")
    exact, near = (
        token_log_probabilities(model, [[3, 1, 4, 1, 5]], bfloat16=bfloat16)[0]
        for bfloat16 in (False, True)
    )
    assert near == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode_and_drops_nothing_out(training: bool) -> None:
    model = bigrams().train(training)
    (scores,) = token_log_probabilities(model, [[0, 1, 1, 2, 0]])
    assert np.exp(scores) == pytest.approx([0.25, 0.75, 0.125, 0.1])
    assert model.training is training
