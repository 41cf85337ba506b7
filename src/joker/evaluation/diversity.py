"""Diversity: how much the jokes of one set differ from one another.

All these figures depend on the number of jokes: compare sets of equal size only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from joker.core.joke import Joke
from joker.core.similarity import normalise
from joker.evaluation.bootstrap import Estimate, half_sample

FREQUENT = 25


def distinct(jokes: Sequence[Joke], n: int, *, seed: int) -> Estimate:
    """Estimate distinct-n: different over all word n-grams; higher is more diverse.

    N-grams are taken from the normalised question and answer, none across the two.
    Source: Li et al., NAACL 2016, "A Diversity-Promoting Objective Function for Neural
    Conversation Models".
    """
    number_of: dict[tuple[str, ...], int] = {}
    grams = [
        np.array([number_of.setdefault(gram, len(number_of)) for gram in _ngrams(joke, n)], np.intp)
        for joke in jokes
    ]

    def share(indices: NDArray[np.intp]) -> float:
        drawn = np.concatenate([grams[index] for index in indices])
        return len(np.unique(drawn)) / max(1, len(drawn))

    return half_sample(share, len(jokes), seed)


def distinct_share(texts: Sequence[str], *, seed: int) -> Estimate:
    """Estimate the share of different texts among all; higher is more diverse."""
    _, kinds = np.unique([normalise(text) or text for text in texts], return_inverse=True)

    def share(indices: NDArray[np.intp]) -> float:
        return len(np.unique(kinds[indices])) / len(indices)

    return half_sample(share, len(texts), seed)


def frequent_share(texts: Sequence[str], *, seed: int) -> Estimate:
    """Estimate the share of texts that are one of the 25 most frequent; lower is more diverse.

    Texts that are the same after normalising count as one.
    """
    _, kinds = np.unique([normalise(text) or text for text in texts], return_inverse=True)

    def share(indices: NDArray[np.intp]) -> float:
        return float(np.sort(np.bincount(kinds[indices]))[-FREQUENT:].sum()) / len(indices)

    return half_sample(share, len(texts), seed)


def _ngrams(joke: Joke, n: int) -> list[tuple[str, ...]]:
    parts = (normalise(joke.question).split(), normalise(joke.answer).split())
    return [tuple(words[i : i + n]) for words in parts for i in range(len(words) - n + 1)]
