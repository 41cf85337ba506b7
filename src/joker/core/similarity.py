"""When two texts are nearly the same: one definition for clusters, the split and originality.

Texts are compared by the Jaccard similarity of their character 5-grams after
normalising. Jokes are short, so word 5-grams, which suit web pages, would miss about
nine copies in ten.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

SHINGLE_LENGTH = 5
NEAR_COPY_JACCARD = 0.5
"""From this similarity on, two jokes count as copies of one another."""

_WORD = re.compile(r"[a-z0-9]+")

# Multiplier of the FNV-1a hash, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
_PRIME = np.uint64(0x100000001B3)


def normalise(text: str) -> str:
    """Return NFKC-folded lower-case words of ``[a-z0-9]+`` joined by single spaces."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).lower()))


def shingles(normalised: str) -> NDArray[np.uint64]:
    """Return the distinct character 5-grams of a normalised text as sorted 64-bit hashes.

    A text shorter than five characters is one shingle, an empty one none. The hashes
    are the same on every machine.
    """
    codes = np.frombuffer(normalised.encode("ascii"), dtype=np.uint8).astype(np.uint64)
    if not len(codes):
        return codes
    length = min(SHINGLE_LENGTH, len(codes))
    hashes = np.full(len(codes) - length + 1, 0xCBF29CE484222325, dtype=np.uint64)
    for offset in range(length):
        hashes = (hashes ^ codes[offset : offset + len(hashes)]) * _PRIME
    return np.unique(hashes)


def jaccard(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:
    """Return shared over all shingles of two sets from `shingles`; 0 when both are empty."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    union = len(left) + len(right) - shared
    return shared / union if union else 0.0
