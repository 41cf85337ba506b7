"""Near-duplicates: variants of the same joke, and the clusters they form.

Three kinds of edges join two jokes: equal normalized question and answer, equal normalized answers
of four words or more, and a Jaccard similarity of at least 0.4 between the character 5-grams of
question and answer (`joker.core.similarity`). Candidates for the last come from MinHash (Broder
1997) with locality-sensitive hashing: 128 bands of 4 rows find a pair at 0.4 with a probability of
96%, one at 0.5 almost certainly. Each candidate is verified exactly. Clusters are the connected
components.

Everything is vectorized, band by band, so a million jokes need no loop in Python and little memory.
The result is the same on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joker.core.joke import Joke
from joker.core.similarity import (
    SPLIT_JACCARD,
    ShingleSets,
    mix,
    normalize,
    permutations,
    sorted_distinct,
)

BANDS = 128
ROWS = 4
MIN_ANSWER_WORDS = 4
"""Minimum number of words of equal answers that make a near-duplicate; shorter ones often
coincide."""
MAX_FULL_BUCKET = 50
"""Up to this size all pairs of a bucket are compared; in larger ones each member is compared with
the first: ten thousand variants of a joke take ten thousand comparisons, not fifty million."""

_THREADS = min(8, os.cpu_count() or 1)
# Batches that fit into a CPU's cache.
_BATCH_TEXTS = 2_000
_BATCH_PAIRS = 4_000

_LOW_BITS = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Near-duplicates among some jokes.

    Attributes:
        exact: For each joke, the index of the first with the same normalized question and answer.
        same_answer: For each joke, the index of the first with the same long answer, or its own.
        pairs: Two rows of indices of verified near-duplicates that are first in ``exact``.
        clusters: Each joke's cluster, numbered in order of first appearance.
    """

    exact: NDArray[np.int64]
    same_answer: NDArray[np.int64]
    pairs: NDArray[np.int64]
    clusters: NDArray[np.int64]

    def exact_copy_in(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Mark the jokes that are equal to one of ``among``."""
        return _mark(self.exact, among)[self.exact]

    def near_duplicate_in(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Mark the jokes with an edge of any kind to one of ``among``."""
        marked = _mark(self.exact, among)
        near = marked.copy()
        left, right = self.pairs
        near[left[marked[right]]] = True
        near[right[marked[left]]] = True
        return near[self.exact] | _mark(self.same_answer, among)[self.same_answer]


def find_near_duplicates(jokes: Sequence[Joke]) -> NearDuplicates:
    """Find the near-duplicates among jokes and the clusters they form."""
    answers = [normalize(joke.answer) for joke in jokes]
    texts = [
        f"{normalize(joke.question)} {answer}" for joke, answer in zip(jokes, answers, strict=True)
    ]
    exact = _first_equal(texts)
    same_answer = _first_equal(
        [
            answer if answer.count(" ") + 1 >= MIN_ANSWER_WORDS else index
            for index, answer in enumerate(answers)
        ]
    )
    indices = np.arange(len(jokes))
    firsts = np.flatnonzero(exact == indices)
    sets = ShingleSets.join(
        ShingleSets.of([texts[index] for index in firsts[start : start + _BATCH_TEXTS]])
        for start in range(0, len(firsts), _BATCH_TEXTS)
    )
    pairs = firsts[_verify(sets, _candidates(sets))]
    left = np.concatenate([pairs[0], indices, indices])
    right = np.concatenate([pairs[1], exact, same_answer])
    return NearDuplicates(exact, same_answer, pairs, _components(len(jokes), left, right))


def _first_equal(keys: Sequence[str | int]) -> NDArray[np.int64]:
    """Return, for each key, the index of its first appearance."""
    seen: dict[str | int, int] = {}
    indices = (seen.setdefault(key, index) for index, key in enumerate(keys))
    return np.fromiter(indices, np.int64, len(keys))


def _mark(first: NDArray[np.int64], among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    marked = np.zeros(len(first), dtype=np.bool_)
    marked[first[among]] = True
    return marked


def _candidates(sets: ShingleSets) -> NDArray[np.uint64]:
    """Return the pairs that share a band, as ``left << 32 | right`` with left < right."""
    filled = np.flatnonzero(np.diff(sets.starts))
    mixed = mix(sets.codes)
    factors, masks = permutations(b"joker", BANDS, ROWS)

    def pairs_of(band: int) -> NDArray[np.uint64]:
        keys = _band_keys(mixed, sets.starts[filled], factors[band], masks[band])
        return sorted_distinct(np.concatenate([*_bucket_pairs(keys, filled)]))

    found = np.empty(0, dtype=np.uint64)
    if len(filled):
        with ThreadPoolExecutor(_THREADS) as pool:
            for pairs in pool.map(pairs_of, range(BANDS)):
                found = sorted_distinct(np.concatenate([found, pairs]))
    return found


def _band_keys(
    mixed: NDArray[np.uint32],
    starts: NDArray[np.int64],
    factors: NDArray[np.uint32],
    masks: NDArray[np.uint32],
) -> NDArray[np.uint64]:
    """Return one key per text: its smallest hash under each permutation, combined."""
    keys = np.zeros(len(starts), dtype=np.uint64)
    ends = np.append(starts[1:], len(mixed))
    for first in range(0, len(starts), _BATCH_TEXTS):
        texts = slice(first, first + _BATCH_TEXTS)
        begin, end = starts[texts][0], ends[texts][-1]
        for factor, mask in zip(factors, masks, strict=True):
            hashes = mixed[begin:end] * factor ^ mask
            keys[texts] ^= np.minimum.reduceat(hashes, starts[texts] - begin)
            keys[texts] *= np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio
            keys[texts] ^= keys[texts] >> np.uint64(29)
    return keys


def _bucket_pairs(
    keys: NDArray[np.uint64], owners: NDArray[np.int64]
) -> Iterator[NDArray[np.uint64]]:
    """Yield pairs of owners whose keys are equal."""
    order = np.argsort(keys, kind="stable")
    changes = np.flatnonzero(np.diff(keys[order])) + 1
    starts = np.concatenate([[0], changes])
    sizes = np.diff(np.append(starts, len(keys)))
    owner = owners[order].astype(np.uint64)
    rank = np.arange(len(keys)) - np.repeat(starts, sizes)
    size = np.repeat(sizes, sizes)

    later = np.flatnonzero((rank > 0) & (size > MAX_FULL_BUCKET))
    yield owner[later - rank[later]] << _HALF | owner[later]
    later = np.flatnonzero((rank > 0) & (size <= MAX_FULL_BUCKET))
    distance = 1
    while len(later):
        yield owner[later - distance] << _HALF | owner[later]
        distance += 1
        later = later[rank[later] >= distance]


def _verify(sets: ShingleSets, candidates: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the candidates that are near-duplicates, as two rows of indices."""
    pairs = np.stack([candidates >> _HALF, candidates & _LOW_BITS]).astype(np.int64)
    sizes = np.diff(sets.starts)
    # If the sizes differ by more, not even a subset is similar enough.
    smaller, larger = np.sort(sizes[pairs], axis=0)
    pairs = pairs[:, smaller >= SPLIT_JACCARD * larger]

    def verify_batch(start: int) -> NDArray[np.int64]:
        batch = pairs[:, start : start + _BATCH_PAIRS]
        return batch[:, sets.jaccard(*batch) >= SPLIT_JACCARD]

    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(verify_batch, range(0, pairs.shape[1], _BATCH_PAIRS))
        return np.concatenate([pairs[:, :0], *parts], axis=1)


def _components(count: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each node's connected component, numbered in order of first appearance.

    Each round attaches the larger root of each edge to the smaller one and compresses all
    paths.
    """
    root = np.arange(count)
    while len(left):
        low, high = np.minimum(root[left], root[right]), np.maximum(root[left], root[right])
        np.minimum.at(root, high, low)
        while (root != root[root]).any():
            root = root[root]
        apart = root[left] != root[right]
        left, right = left[apart], right[apart]
    return np.unique(root, return_inverse=True)[1].astype(np.int64)
