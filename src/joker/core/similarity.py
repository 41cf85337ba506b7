"""When two texts are nearly the same: one definition for clusters, the split and originality.

Texts are compared by the Jaccard similarity of their character 5-grams after normalizing. Word
5-grams, which suit web pages, would miss about nine in ten near-duplicates of something as short as
a joke.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joker.core.joke import Joke

SHINGLE_LENGTH = 5
NEAR_COPY_JACCARD = 0.5
"""Similarity from which two jokes count as near-duplicates."""
SPLIT_JACCARD = 0.4
"""Similarity from which two jokes must be on the same side of a split. Of 17 pairs between 0.44 and
0.5 that were read, 14 were the same joke."""

_WORD = re.compile(r"[a-z0-9]+")

# A normalized text has 37 different characters. Numbered from 1, five of them make a number below
# 38 ** 5 < 2 ** 32, so no two shingles have the same code.
_SYMBOLS = np.zeros(128, np.uint32)
_SYMBOLS[np.frombuffer(b" 0123456789abcdefghijklmnopqrstuvwxyz", np.uint8)] = np.arange(1, 38)
_BASE = np.uint32(38)
_PADDING = "\0" * SHINGLE_LENGTH
_HALF = np.uint64(32)


def normalize(text: str) -> str:
    """Return the lower-case words ``[a-z0-9]+`` of a text after NFKC, joined by single spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(_WORD.findall(text.lower()))


def normalize_joke(joke: Joke) -> str:
    """Return a joke's question and answer as one normalized text."""
    return normalize(f"{joke.question} {joke.answer}")


@dataclass(frozen=True, slots=True)
class ShingleSets:
    """The shingles of many texts, one after another: their distinct character 5-grams.

    A text shorter than five characters is one shingle, an empty one none.

    Attributes:
        codes: Each text's shingles, sorted. A code stands for one 5-gram and is the same on every
            machine.
        starts: Where each text's codes begin, and where the last text's end.
    """

    codes: NDArray[np.uint32]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, normalized: Sequence[str]) -> ShingleSets:
        """Return the shingles of normalized texts."""
        lengths = np.fromiter(map(len, normalized), np.int64, len(normalized))
        counts = np.where(lengths, np.maximum(lengths - SHINGLE_LENGTH + 1, 1), 0)
        # Padded so that no window reaches into the next text.
        joined = "".join(text + _PADDING for text in normalized)
        symbols = _SYMBOLS[np.frombuffer(joined.encode("ascii"), np.uint8)]
        windows = np.zeros(len(symbols), np.uint32)
        for offset in range(SHINGLE_LENGTH):
            windows[: len(windows) - offset] *= _BASE
            windows[: len(windows) - offset] += symbols[offset:]
        skipped = lengths + SHINGLE_LENGTH - counts  # windows that reach into the padding
        positions = np.arange(counts.sum()) + np.repeat(np.cumsum(skipped) - skipped, counts)
        texts = np.arange(len(normalized) + 1, dtype=np.uint64) << _HALF
        keys = sorted_distinct(np.repeat(texts[:-1], counts) | windows[positions])
        return cls(keys.astype(np.uint32), np.searchsorted(keys, texts).astype(np.int64))

    @classmethod
    def join(cls, parts: Iterable[ShingleSets]) -> ShingleSets:
        """Return the texts of all parts in order."""
        codes, counts = [np.empty(0, np.uint32)], [np.zeros(1, np.int64)]
        for part in parts:
            codes.append(part.codes)
            counts.append(np.diff(part.starts))
        return cls(np.concatenate(codes), np.cumsum(np.concatenate(counts)))

    def jaccard(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the Jaccard similarity of each pair of texts, given by their indices."""
        members = np.concatenate([left, right])
        sizes = np.diff(self.starts)[members]
        pair = np.tile(np.arange(len(left), dtype=np.uint64), 2) << _HALF
        shifts = self.starts[members] - (np.cumsum(sizes) - sizes)
        positions = np.arange(sizes.sum()) + np.repeat(shifts, sizes)
        # A shingle of both texts appears twice under its pair's number.
        keys = np.sort(np.repeat(pair, sizes) | self.codes[positions])
        twice = keys[1:][keys[1:] == keys[:-1]] >> _HALF
        shared = np.bincount(twice.astype(np.int64), minlength=len(left))
        union = sizes[: len(left)] + sizes[len(left) :] - shared
        similarity: NDArray[np.float64] = shared / np.maximum(union, 1)
        return similarity


def mix(codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Spread codes over 32 bits (the finalizer of Appleby's MurmurHash3), for MinHash."""
    mixed = codes ^ (codes >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def permutations(label: bytes, *shape: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return factors and masks of random permutations: ``mixed * factor ^ mask``.

    The label seeds them; they are the same on every machine.
    """
    count = math.prod(shape)
    seeds = np.frombuffer(hashlib.shake_128(label).digest(8 * count), "<u4")
    factors, masks = seeds.reshape(2, *shape)
    return factors | np.uint32(1), masks


def sorted_distinct(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the distinct values in order; several times as fast as `numpy.unique`."""
    ordered = np.sort(values)
    first = np.append(np.True_, ordered[1:] != ordered[:-1])
    distinct: NDArray[np.uint64] = ordered[first[: len(ordered)]]
    return distinct
