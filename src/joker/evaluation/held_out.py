"""Held-out jokes to measure on: the test split of a prepared folder, or a CSV file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from joker.core.errors import DataError
from joker.core.joke import Joke
from joker.data.near_duplicates import find_near_duplicates
from joker.data.prepared import PreparedData
from joker.data.sources import Source, read_rows


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Jokes that a model was not trained on.

    Attributes:
        jokes: The jokes.
        clusters: Each joke's cluster of near-duplicates.
        training: The training jokes; None if they are unknown.
        facts: Where the jokes come from, including a ``name`` and a ``fingerprint``.
    """

    jokes: Sequence[Joke]
    clusters: Sequence[int]
    training: Sequence[Joke] | None
    facts: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> HeldOut:
        """Read a prepared folder's test split, or a CSV file with Question and Answer.

        Raises:
            DataError: If it cannot be read or contains no joke.
        """
        held_out = cls.of(PreparedData.open(path)) if path.is_dir() else _from_file(path)
        if not held_out.jokes:
            raise DataError(f"there is no joke to evaluate in {held_out.facts['name']}")
        return held_out

    @classmethod
    def of(cls, data: PreparedData) -> HeldOut:
        """Return a prepared folder's test split."""
        test = data.jokes("test")
        return cls(
            jokes=[prepared.joke for prepared in test],
            clusters=[prepared.cluster for prepared in test],
            training=[prepared.joke for prepared in data.jokes("train")],
            facts={
                "name": f"the test split of {data.path}",
                "fingerprint": data.manifest.fingerprint,
                "split": data.manifest.split,
                "split_seed": data.manifest.seed,
            },
        )

    def sample(self, count: int, seed: int) -> HeldOut:
        """Return ``count`` random jokes in order; all of them if it is 0 or too large."""
        if not 0 < count < len(self.jokes):
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self.jokes))[:count])
        return replace(
            self,
            jokes=[self.jokes[index] for index in chosen],
            clusters=[self.clusters[index] for index in chosen],
        )


def _from_file(path: Path) -> HeldOut:
    """Read jokes without cleaning them, so that metrics do not depend on its rules."""
    rows = [Joke.from_text(row.question, row.answer) for row in read_rows(Source.custom(path))]
    jokes = [joke for joke in rows if joke]
    return HeldOut(
        jokes=jokes,
        clusters=find_near_duplicates(jokes).clusters.tolist(),
        training=None,
        facts={
            "name": str(path),
            "fingerprint": hashlib.sha256(path.read_bytes()).hexdigest(),
            "rows_without_joke": len(rows) - len(jokes),
        },
    )
