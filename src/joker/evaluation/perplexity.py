"""The original system's perplexity, computed as it was, and why it must not be trusted.

Its markers are plain text that costs almost nothing to predict, so the figure is
deflated, and differently by template; blocks let a joke see the jokes before it; and its
two data sets overlap, so that test jokes were trained on. Compare by bits per byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TypeVar

T = TypeVar("T")

BLOCK_TOKENS = 128
ORIGINAL_PERPLEXITY = 13.64
"""What the original reports for its best template on its own test split."""


def cut_blocks(jokes: Iterable[Sequence[T]], block_tokens: int = BLOCK_TOKENS) -> list[list[T]]:
    """Join jokes in their order, each with its end token, and cut blocks of equal length.

    The remainder is dropped. Source: ``group_texts`` of Transformers' ``run_clm.py``.

    Args:
        jokes: Each joke's token ids (or one value per token), the start token's first, which
            is left out.
        block_tokens: Tokens per block.
    """
    tokens = list(chain.from_iterable(joke[1:] for joke in jokes))
    starts = range(0, len(tokens) - block_tokens + 1, block_tokens)
    return [tokens[start : start + block_tokens] for start in starts]
