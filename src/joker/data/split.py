"""Splitting: which jokes are for testing, by seed and by nothing else of machine or run.

Every unit, a joke or a whole cluster, gets a number from a hash of the seed and of its
text; in the order of these numbers units go to the test set until it is full. So a
split does not depend on a library's generator, and adding a source moves few jokes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TEST_SHARE = 0.1


def split_by_joke(keys: Sequence[str], seed: int) -> NDArray[np.bool_]:
    """Return which jokes are for testing, each drawn by itself, as the original draws them."""
    return split_by_cluster(keys, np.arange(len(keys)), seed, np.ones(len(keys), dtype=np.bool_))


def split_by_cluster(
    keys: Sequence[str],
    clusters: NDArray[np.int64],
    seed: int,
    counted: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Return which jokes are for testing, whole clusters at a time.

    A cluster that would overfill the test set stays in training.

    Args:
        keys: A text for every joke; a cluster is drawn by its first joke's.
        clusters: Every joke's cluster.
        seed: Any whole number.
        counted: The jokes of which a tenth goes to the test set; others go with their cluster.
    """
    names, firsts, members = np.unique(clusters, return_index=True, return_inverse=True)
    sizes = np.bincount(members, weights=counted).astype(np.int64)
    draws = [_draw(keys[first], seed) for first in firsts.tolist()]
    wanted = max(round(TEST_SHARE * counted.sum()), 1)
    chosen = np.zeros(len(names), dtype=np.bool_)
    for index in sorted(range(len(names)), key=draws.__getitem__):
        if sizes[index] <= wanted:
            chosen[index] = True
            wanted -= sizes[index]
    return chosen[members]


def _draw(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=16).digest()
