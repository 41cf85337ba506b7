"""Originality: which jokes copy training jokes, found by exact search.

What counts as nearly the same is `joker.core.similarity`'s definition. The checks that
serving makes without the training jokes at hand are `joker.generation`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joker.core.fingerprints import SAME_ANSWER_WORDS
from joker.core.joke import Joke
from joker.core.similarity import (
    NEAR_COPY_JACCARD,
    ShingleSets,
    normalise,
    normalise_joke,
    shingles,
)


@dataclass(frozen=True, slots=True)
class Copy:
    """In which ways a joke copies a training joke.

    Attributes:
        exact: Question and answer are the same after normalising.
        near: The Jaccard similarity of character 5-grams is 0.5 or more.
        answer: The answer has three words or more and is the same after normalising.
    """

    exact: bool
    near: bool
    answer: bool

    def __bool__(self) -> bool:
        return self.exact or self.near or self.answer


class TrainingIndex:
    """Training jokes, with the owners of every shingle, to find the most similar one.

    Args:
        jokes: What the model was trained on.
    """

    def __init__(self, jokes: Sequence[Joke]) -> None:
        texts = sorted({normalise_joke(joke) for joke in jokes})
        self._texts = frozenset(texts)
        self._answers = frozenset(normalise(joke.answer) for joke in jokes)
        sets = ShingleSets.of(texts)
        self._sizes = np.diff(sets.starts)
        order = np.argsort(sets.codes, kind="stable")
        self._codes = sets.codes[order]
        self._owners = np.repeat(np.arange(len(texts)), self._sizes)[order]

    def copy(self, joke: Joke) -> Copy:
        """Say in which ways a joke copies any training joke."""
        text, answer = normalise_joke(joke), normalise(joke.answer)
        return Copy(
            exact=bool(text) and text in self._texts,
            near=self.similarity(joke) >= NEAR_COPY_JACCARD,
            answer=len(answer.split()) >= SAME_ANSWER_WORDS and answer in self._answers,
        )

    def similarity(self, joke: Joke) -> float:
        """Return the Jaccard similarity to the most similar training joke."""
        own = shingles(normalise_joke(joke))
        starts = np.searchsorted(self._codes, own, side="left")
        ends = np.searchsorted(self._codes, own, side="right")
        owners = [self._owners[start:end] for start, end in zip(starts, ends, strict=True)]
        if not owners:
            return 0.0
        shared = np.bincount(np.concatenate(owners), minlength=len(self._sizes))
        return float((shared / (len(own) + self._sizes - shared)).max(initial=0.0))
