"""Hardware: data types, compilation, memory, and model FLOPs utilization."""

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
"""Forward passes from which compiling, 40 to 60 s on 2 cores, pays off; see docs/experiments.md."""

_LARGE_BLOCK = 2**25
"""Bytes from which malloc uses mmap; the maximum of glibc's dynamic threshold."""

_MATRIX_PRODUCTS = 5
"""Number of matrix products that are timed; the fastest counts."""

_NO_DISK = re.compile(
    r"No space left|File too large|quota exceeded|PytorchStreamWriter failed"
    r"|disk is full|disk I/O error"  # SQLite's messages
)
_NO_DISK_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def has_fast_bfloat16() -> bool:
    """Return whether the hardware has instructions for matrix products in bfloat16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16") or abilities.get("bf16"))


def resolve_precision(precision: Precision) -> torch.dtype:
    """Return the data type of matrix products; auto means bfloat16 where it is fast."""
    if precision == "float32" or (precision == "auto" and not has_fast_bfloat16()):
        return torch.float32
    return torch.bfloat16


def resolve_compile(setting: Compile, forward_passes: int) -> bool:
    """Return whether to compile; auto means if there is a compiler and the run is long."""
    if setting != "auto":
        return setting == "always"
    has_compiler = torch.cuda.is_available() or bool(shutil.which(os.environ.get("CXX", "g++")))
    return has_compiler and forward_passes >= _COMPILE_PAYS_STEPS


def keep_freed_memory(keep: bool = True) -> None:
    """Tell glibc to keep freed memory instead of giving it back to the kernel.

    A training step allocates and frees the logits, hundreds of MiB, several times. By
    default each allocation uses mmap and munmap, so all its pages are faulted in and zeroed
    again, which made a step 1.8 times as long on 2 cores. No effect on other C libraries.
    Parameter numbers: M_TRIM_THRESHOLD -1, M_MMAP_THRESHOLD -3, from glibc's malloc.h.

    Args:
        keep: False returns kept memory to the kernel and restores the default:
            allocations of varying size, as in evaluation, would fragment the heap.
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
    """Raise a `ResourceError` with advice if training runs out of memory or disk space.

    Libraries report a full disk as an OSError, or as an error of their own with its message.

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
    """Turn off the libraries' own progress bars and notices; errors are still shown."""
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    for name in ("mlflow", "alembic", "huggingface_hub", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def flops_per_token(model: PreTrainedModel, row: int) -> float:
    """Return the number of floating-point operations of training per token.

    Model FLOPs utilization (MFU) is this times the tokens per second, divided by `matrix_rate`.
    Recomputation and padding do not count: 6 operations for each parameter of a matrix product,
    and 12 × layers × width × row for attention (Chowdhery et al. 2022,
    https://arxiv.org/abs/2204.02311, appendix B).

    Args:
        model: A causal LM. Its output matrix counts, tied or not; embeddings that are only looked
            up do not.
        row: Tokens per row of a batch, each of which attends to all of them.
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
    """Measure the floating-point operations per second of a large matrix product.

    It is measured, not looked up, so that MFU means the same on a CPU and a GPU; once per process.

    Args:
        device: The device; on a CPU with as many threads as PyTorch uses.
        precision: Data type of the factors.
    """
    size = 8192 if device.type == "cuda" else 2048
    left, right = torch.randn(2, size, size, device=device).to(precision)
    best = float("inf")
    for _ in range(_MATRIX_PRODUCTS):
        begun = time.perf_counter()
        # Reading a number waits for the GPU, which computes asynchronously.
        (left @ right)[0, 0].item()
        best = min(best, time.perf_counter() - begun)
    return 2.0 * size**3 / best
