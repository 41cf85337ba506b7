from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from joker.training.utilization import flops_per_token, matrix_rate


@pytest.mark.parametrize("tied", [True, False])
def test_operations_are_those_of_the_multiplied_matrices_and_of_attention(tied: bool) -> None:
    shape: dict[str, Any] = {"n_layer": 2, "n_embd": 8, "n_head": 2}
    shape |= {"vocab_size": 50, "n_positions": 16, "tie_word_embeddings": tied}
    model = GPT2LMHeadModel(GPT2Config(**shape))  # type: ignore[no-untyped-call]
    block = 8 * 24 + 24 + 8 * 8 + 8 + 8 * 32 + 32 + 32 * 8 + 8 + 4 * 8
    multiplied = 2 * block + 2 * 8 + 50 * 8
    assert flops_per_token(model, 16) == 6 * multiplied + 12 * 2 * 8 * 16


def test_the_rate_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 10.0, 12.0, 20.0, 20.5, 30.0, 34.0, 40.0, 41.0])
    monkeypatch.setattr("joker.training.utilization.time.perf_counter", lambda: next(clock))
    assert matrix_rate(torch.device("cpu"), torch.float32) == 2 * 2048**3 / 0.5
