"""The mixture: which source each row of pretraining comes from, and the rows themselves.

The share of every source is given for the stable phase and for the decay, in which the
learning rate falls; jokes weigh more there, because a model remembers best what it reads
last (Hu et al. 2024, https://arxiv.org/abs/2404.06395). The order of all rows follows
from a seed before the first step, so a run that was stopped goes on with the very next
row, and only the rows' tokens are read from disk as they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from joker.core.errors import DataError
from joker.data.shards import TokenStream
from joker.training.packing import IGNORED


@dataclass(frozen=True, slots=True)
class Plan:
    """The order of rows.

    Attributes:
        sources: Names of the sources.
        source: For every row the index of its source.
        place: For every row its place among the rows of that source, counted from the start.
    """

    sources: list[str]
    source: NDArray[np.uint8]
    place: NDArray[np.uint32]

    @property
    def rows_of(self) -> dict[str, int]:
        """Number of rows that each source gives."""
        counts = np.bincount(self.source, minlength=len(self.sources))
        return dict(zip(self.sources, counts.tolist(), strict=True))


def make_plan(
    rows: int, shares: Mapping[str, float], final: Mapping[str, float], decay: float, seed: int
) -> Plan:
    """Draw the source of every row.

    Args:
        rows: How many rows.
        shares: Ratios of the sources in the stable phase.
        final: Ratios in the last phase.
        decay: The last phase's share of all rows.
        seed: Decides the draw.
    """
    sources = sorted({*shares, *final})
    rng = np.random.default_rng([seed, 0])
    last = round(rows * decay)
    phases = []
    for count, ratios in ((rows - last, shares), (last, final)):
        weights = np.array([ratios.get(source, 0.0) for source in sources])
        phases.append(rng.choice(len(sources), count, p=weights / weights.sum()))
    drawn = np.concatenate(phases)
    place = np.zeros(rows, np.uint32)
    for index in range(len(sources)):
        own = drawn == index
        place[own] = np.arange(own.sum())
    return Plan(sources, drawn.astype(np.uint8), place)


class MixedRows(Dataset[dict[str, torch.Tensor]]):
    """Rows of equal length cut from streams of tokens, in the order of a plan.

    A source that gives more rows than it has is read again in another order and cut at
    other places. Positions begin again at each document, so attention stays inside it.

    Args:
        streams: Tokens of every source of the plan.
        plan: The order.
        block_size: Tokens in a row.
        start_id: The token that every document begins with.
        seed: Decides the order within each source.

    Raises:
        DataError: If a source does not fill one row.
    """

    def __init__(
        self,
        streams: Mapping[str, TokenStream],
        plan: Plan,
        block_size: int,
        start_id: int,
        seed: int,
    ) -> None:
        self._plan = plan
        self._streams = [streams[source] for source in plan.sources]
        self._block_size = block_size
        self._start_id = start_id
        self._seed = seed
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}
        for source, stream in zip(plan.sources, self._streams, strict=True):
            if len(stream) < 2 * block_size:
                raise DataError(f"source {source} has too few tokens for rows of {block_size}")

    def __len__(self) -> int:
        return len(self._plan.source)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        source, place = int(self._plan.source[index]), int(self._plan.place[index])
        tokens = self._streams[source].read(self._start(source, place), self._block_size)
        places = np.arange(self._block_size)
        starts = np.maximum.accumulate(np.where(tokens == self._start_id, places, 0))
        input_ids = torch.from_numpy(tokens)
        labels = input_ids.clone()
        labels[0] = IGNORED
        return {
            "input_ids": input_ids,
            "position_ids": torch.from_numpy(places - starts),
            "labels": labels,
        }

    def passes(self) -> dict[str, float]:
        """Return how many times each source is read."""
        rows = self._plan.rows_of.items()
        return {
            source: count * self._block_size / len(stream)
            for (source, count), stream in zip(rows, self._streams, strict=True)
        }

    def _start(self, source: int, place: int) -> int:
        """Return where a source's n-th row begins; a pass leaves out less than one row."""
        stream = self._streams[source]
        rows = len(stream) // self._block_size - 1
        epoch, number = divmod(place, rows)
        if (source, epoch) not in self._orders:
            rng = np.random.default_rng([self._seed, 1, source, epoch])
            self._orders[source, epoch] = np.append(
                rng.permutation(rows), rng.integers(self._block_size)
            )
        order = self._orders[source, epoch]
        return int(order[number] * self._block_size + order[-1])
