import errno
from pathlib import Path

import pytest
import torch

from joker.core.errors import ResourceError
from joker.training.hardware import resolve_compile, resolve_precision, translate_resource_errors

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
