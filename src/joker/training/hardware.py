"""What the machine can do and how well it is used: number formats, a compiler, memory, MFU."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from joker.core.errors import ResourceError
from joker.engines.weights import out_of_memory_as_resource_error
from joker.training.config import Compile, Precision

_COMPILE_PAYS_STEPS = 300
"""Forward passes from which compiling (40 to 60 s on 2 cores) is won back; docs/experiments.md."""

_LARGE_BLOCK = 2**25
"""Bytes from which a block has a mapping of its own; the most that glibc's own rule comes to."""

_MATRIX_PRODUCTS = 5
"""Products timed for the rate, of which the fastest counts."""

_NO_DISK = re.compile(
    r"No space left|File too large|quota exceeded|PytorchStreamWriter failed"
    r"|disk is full|disk I/O error"  # SQLite's words
)
_NO_DISK_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def has_fast_bfloat16() -> bool:
    """Say whether matrix products in bfloat16 have instructions of their own here."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16") or abilities.get("bf16"))


def resolve_precision(precision: Precision) -> torch.dtype:
    """Return the number format of matrix products: bfloat16 where it is fast, unless told."""
    if precision == "float32" or (precision == "auto" and not has_fast_bfloat16()):
        return torch.float32
    return torch.bfloat16


def resolve_compile(setting: Compile, forward_passes: int) -> bool:
    """Say whether to compile: as told, or where a compiler is there and the run is long."""
    if setting != "auto":
        return setting == "always"
    has_compiler = torch.cuda.is_available() or bool(shutil.which(os.environ.get("CXX", "g++")))
    return has_compiler and forward_passes >= _COMPILE_PAYS_STEPS


def keep_freed_memory(keep: bool = True) -> None:
    """Tell glibc to keep freed memory instead of giving it back to the kernel.

    A training step allocates and frees the logits, hundreds of MiB, several times. By
    default each goes through mmap and munmap, and every page is faulted in and zeroed
    anew, which made a step 1.8 times as long on 2 cores. No effect on other C libraries.
    Parameter numbers: M_TRIM_THRESHOLD -1, M_MMAP_THRESHOLD -3, from glibc's malloc.h.

    Args:
        keep: False goes back to giving it back, what was kept included: work whose
            allocations differ in size, such as evaluation, would fragment the heap.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    libc.mallopt(-3, 2**30 if keep else _LARGE_BLOCK)
    libc.mallopt(-1, 2**31 - 1 if keep else 2 * _LARGE_BLOCK)
    if not keep:
        libc.malloc_trim(0)


@contextmanager
def translate_resource_errors(out: Path) -> Iterator[None]:
    """Raise `ResourceError`, with advice, where training runs out of memory or disk space.

    Libraries report a full disk as an OSError, or with its message in an error of their own.

    Args:
        out: The folder being written, named in the message.
    """
    advice = (
        "lower --batch-size (raise --gradient-accumulation-steps to make up for it) or choose a "
        "smaller base; --resume continues from the last checkpoint"
    )
    with out_of_memory_as_resource_error("training", advice):
        try:
            yield
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            if getattr(error, "errno", None) in _NO_DISK_NUMBERS or _NO_DISK.search(said):
                raise ResourceError(
                    f"the disk of {out} is full: free some space, then continue with --resume"
                ) from error
            raise


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and notices off the screen; errors stay."""
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    for name in ("mlflow", "alembic", "huggingface_hub", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def flops_per_token(model: PreTrainedModel, row: int) -> float:
    """Return the floating point operations that training takes for a token.

    Model FLOPs utilization (MFU) is these times the tokens per second, divided by `matrix_rate`.
    Only what the model's mathematics needs counts, so recomputing and padding are waste: 6 for
    each multiplied parameter and 12 × layers × width × row for attention (Chowdhery et al. 2022,
    https://arxiv.org/abs/2204.02311, appendix B).

    Args:
        model: A causal LM. Its matrix of the vocabulary counts once; tables that are only looked
            up in do not count.
        row: Tokens in a row of a batch, each of which attends to all of them.
    """
    output: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    looked_up = [
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding) and module.weight is not output.weight
    ]
    multiplied = model.num_parameters() - sum(looked_up)
    attention = 12.0 * model.config.num_hidden_layers * model.config.hidden_size * row
    return float(6.0 * multiplied + attention)


@cache
def matrix_rate(device: torch.device, precision: torch.dtype) -> float:
    """Measure the floating point operations per second of a large matrix product.

    Measured and not looked up, so that MFU means the same on a CPU and on a GPU; once in a process.

    Args:
        device: Where; on a CPU with as many threads as PyTorch uses.
        precision: The number format of the factors.
    """
    size = 8192 if device.type == "cuda" else 2048
    left, right = torch.randn(2, size, size, device=device).to(precision)
    best = float("inf")
    for _ in range(_MATRIX_PRODUCTS):
        begun = time.perf_counter()
        # One number is read, because a GPU computes while Python goes on.
        (left @ right)[0, 0].item()
        best = min(best, time.perf_counter() - begun)
    return 2.0 * size**3 / best
