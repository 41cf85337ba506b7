"""Jokes as rows of equal length for training.

`pack_jokes` puts whole jokes side by side in a row. Positions start again at each joke,
by which Transformers recognises a packed row and keeps attention inside each joke, so a
joke's loss is the same as if it stood alone. `block_rows` is the original's way: all
jokes in one text, cut every 128 tokens, jokes torn apart and seeing one another.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from joker.core.tokenizer import EncodedJoke
from joker.evaluation.perplexity import cut_blocks

IGNORED = -100
"""Label that PyTorch's cross entropy leaves out."""


@dataclass(frozen=True, slots=True)
class Rows(Dataset[dict[str, torch.Tensor]]):
    """Training rows.

    Attributes:
        tensors: By name, each of shape (rows, block_size): ``input_ids`` and ``labels``
            (`IGNORED` where there is nothing to predict); packed rows have
            ``position_ids``, the position within the joke, ``answer_mask``, whether
            a label belongs to an answer (bool), and ``weights``, how much its loss counts, besides.
        used: Places that hold a token of a joke, start tokens included.
        too_long: Jokes left out because they exceed a row.
    """

    tensors: dict[str, torch.Tensor]
    used: int
    too_long: int = 0

    def __len__(self) -> int:
        return len(self.tensors["input_ids"])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    @property
    def fill(self) -> float:
        """Share of the rows' places that hold a joke's token, start tokens included."""
        return self.used / max(1, self.tensors["input_ids"].numel())


def pack_jokes(
    jokes: Sequence[EncodedJoke], block_size: int, pad_id: int, multiple: int = 1
) -> Rows:
    """Fill rows with whole jokes, best fit first, longest jokes first.

    Args:
        jokes: Encoded jokes; ones longer than a row are left out and counted.
        block_size: Tokens per row.
        pad_id: Token for the places left over; never predicted, never attended to.
        multiple: Rows without jokes are added until the number of rows is a multiple of
            this, so that every batch has one shape and a compiled model is compiled once.
    """
    fitting = [joke for joke in jokes if len(joke) <= block_size]
    rows = _best_fit([len(joke) for joke in fitting], block_size)
    rows += [[] for _ in range(-len(rows) % multiple)]
    shape = (len(rows), block_size)
    input_ids = torch.full(shape, pad_id)
    position_ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    answer_mask = torch.zeros(shape, dtype=torch.bool)
    weights = torch.ones(shape)
    for row, members in enumerate(rows):
        start = 0
        for member in members:
            joke = fitting[member]
            end = start + len(joke)
            ids = torch.tensor(joke.input_ids)
            input_ids[row, start:end] = ids
            position_ids[row, start:end] = torch.arange(len(joke))
            labels[row, start + joke.learnt_from : end] = ids[joke.learnt_from :]
            answer_mask[row, start + joke.answer_start : end] = joke.learnt_from == 1
            weights[row, start:end] = joke.weight
            start = end
    tensors = {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "labels": labels,
        "answer_mask": answer_mask,
        "weights": weights,
    }
    used = sum(len(joke) for joke in fitting)
    return Rows(tensors, used, too_long=len(jokes) - len(fitting))


def block_rows(jokes: Sequence[EncodedJoke], block_size: int) -> Rows:
    """Join all jokes into one text and cut it into blocks, the original's way."""
    cut = cut_blocks(jokes, block_size)
    blocks = torch.tensor(cut, dtype=torch.long).view(len(cut), block_size)
    return Rows({"input_ids": blocks, "labels": blocks}, used=blocks.numel())


def _best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Distribute items over bins of a capacity, best fit decreasing; returns indices per bin."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (room left, bin), sorted
    for item in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        place = bisect.bisect_left(room, (lengths[item], -1))
        if place == len(room):
            bins.append([item])
            left = (capacity - lengths[item], len(bins) - 1)
        else:
            free, chosen = room.pop(place)
            bins[chosen].append(item)
            left = (free - lengths[item], chosen)
        bisect.insort(room, left)
    return bins
