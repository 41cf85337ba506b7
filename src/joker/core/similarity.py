"""When two texts are nearly the same: one definition for clusters, the split and originality.

Texts are compared by the Jaccard similarity of their character 5-grams after
normalising. Jokes are short, so word 5-grams, which suit web pages, would miss about
nine copies in ten.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHINGLE_LENGTH = 5
NEAR_COPY_JACCARD = 0.5
"""From this similarity on, two jokes count as copies of one another."""

_WORD = re.compile(r"[a-z0-9]+")

# A normalised text has 37 different characters; numbered from 1, five of them are a number below
# 38 ** 5 < 2 ** 32, so a shingle's code is the shingle itself and no two can collide.
_CODES = np.zeros(128, dtype=np.uint32)
_CODES[np.frombuffer(b" 0123456789abcdefghijklmnopqrstuvwxyz", dtype=np.uint8)] = np.arange(1, 38)
_BASE = np.uint32(38)


def normalise(text: str) -> str:
    """Return NFKC-folded lower-case words of ``[a-z0-9]+`` joined by single spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(_WORD.findall(text.lower()))


def shingles(normalised: str) -> NDArray[np.uint32]:
    """Return the distinct character 5-grams of a normalised text as sorted 32-bit codes.

    A text shorter than five characters is one shingle, an empty one none. A code
    stands for one 5-gram only and is the same on every machine.
    """
    return ShingleSets.of([normalised])[0]


def jaccard(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> float:
    """Return shared over all shingles of two sets from `shingles`; 0 when both are empty."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    union = len(left) + len(right) - shared
    return shared / union if union else 0.0


@dataclass(frozen=True, slots=True)
class ShingleSets:
    """The shingles of many texts, one behind the other.

    Attributes:
        codes: Every text's distinct shingles, sorted.
        starts: Where each text's shingles begin, and a last entry where the last ones end.
    """

    codes: NDArray[np.uint32]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, normalised: Sequence[str]) -> ShingleSets:
        """Return the shingles of normalised texts, which `shingles` gives for a single one."""
        lengths = np.fromiter(map(len, normalised), dtype=np.int64, count=len(normalised))
        # Padded with five absent characters, a window never reaches into the next text.
        joined = "".join(text + "\0\0\0\0\0" for text in normalised).encode("ascii")
        symbols = _CODES[np.frombuffer(joined, dtype=np.uint8)]
        windows = np.zeros(len(symbols), dtype=np.uint32)
        for offset in range(SHINGLE_LENGTH):
            windows[: len(windows) - offset] *= _BASE
            windows[: len(windows) - offset] += symbols[offset:]
        counts = np.where(lengths > 0, np.maximum(lengths - SHINGLE_LENGTH + 1, 1), 0)
        owners = np.repeat(np.arange(len(normalised), dtype=np.uint64), counts)
        starts = np.cumsum(lengths + SHINGLE_LENGTH) - lengths - SHINGLE_LENGTH
        firsts = np.cumsum(counts) - counts
        places = np.arange(counts.sum()) + np.repeat(starts - firsts, counts)
        keys = np.unique(owners << np.uint64(32) | windows[places])
        owners = keys >> np.uint64(32)
        ends = np.searchsorted(owners, np.arange(len(normalised) + 1, dtype=np.uint64))
        return cls((keys & np.uint64(0xFFFFFFFF)).astype(np.uint32), ends.astype(np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> NDArray[np.uint32]:
        return self.codes[self.starts[index] : self.starts[index + 1]]
