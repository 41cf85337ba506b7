import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from joker.core.errors import ResourceError
from joker.training.hardware import (
    flops_per_token,
    matrix_rate,
    resolve_compile,
    resolve_precision,
    translate_resource_errors,
)

OUT = Path("model")


def test_memory_that_pytorch_cannot_have_is_one_sentence() -> None:
    with pytest.raises(ResourceError, match="memory"), translate_resource_errors(OUT):
        torch.empty(2**58)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_is_full_is_one_sentence_that_names_the_folder(number: int) -> None:
    with pytest.raises(ResourceError, match="model"), translate_resource_errors(OUT):
        raise OSError(number, "said by the system")


def test_a_disk_that_is_full_in_a_librarys_words_is_one_sentence() -> None:
    with pytest.raises(ResourceError, match="disk"), translate_resource_errors(OUT):
        raise RuntimeError("I/O error: No space left on device (os error 28)")


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), translate_resource_errors(OUT):
        raise KeyError("a defect of ours")


def test_short_trainings_are_not_compiled_unless_told() -> None:
    assert not resolve_compile("auto", forward_passes=10)
    assert resolve_compile("always", forward_passes=10)
    assert not resolve_compile("never", forward_passes=10**9)


def test_precision_is_as_told() -> None:
    assert resolve_precision("float32") is torch.float32
    assert resolve_precision("bfloat16") is torch.bfloat16


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
    monkeypatch.setattr("joker.training.hardware.time.perf_counter", lambda: next(clock))
    assert matrix_rate.__wrapped__(torch.device("cpu"), torch.float32) == 2 * 2048**3 / 0.5


def test_the_rate_is_measured_once_for_all_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joker.training.hardware._MATRIX_PRODUCTS", 1)
    first, again = (matrix_rate(torch.device("cpu"), torch.float32) for _ in range(2))
    assert first == again
