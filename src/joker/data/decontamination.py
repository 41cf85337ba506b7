"""Held-out jokes in other people's text: found, so that no model trains on what it is tested on.

A text counts as holding a joke when some stretch of it contains at least half of the
joke's character 5-grams (`joker.core.similarity`) and 20 or all of them, or the joke's
whole answer where that has four words or more. Two texts of equal length that share half
of one's 5-grams are near-copies by Jaccard too; containment also finds a joke inside a
story or a list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from joker.core.joke import Joke
from joker.core.similarity import NEAR_COPY_JACCARD, ShingleSets, normalise, normalise_joke
from joker.data.near_copies import ANSWER_WORDS

STRETCH_CHARACTERS = 1_000
"""Stretches overlap by half, so that every joke of up to 500 characters lies whole in one. Of a
longer stretch's 5-grams too many would be some joke's by chance."""
LEAST_SHINGLES = 20
"""Half of a very short joke's 5-grams stand in any text."""


class HeldOutJokes:
    """An index of jokes that must not be trained on.

    Args:
        jokes: The held-out jokes.
    """

    def __init__(self, jokes: Sequence[Joke]) -> None:
        texts = [normalise_joke(joke) for joke in jokes]
        sets = ShingleSets.of(texts)
        sizes = np.diff(sets.starts)
        least = np.maximum(NEAR_COPY_JACCARD * sizes, np.minimum(sizes, LEAST_SHINGLES))
        self._least = np.maximum(least, 1)
        order = np.argsort(sets.codes, kind="stable")
        codes, begins = np.unique(sets.codes[order], return_index=True)
        # One code more than any text has, so that every search ends at one.
        self._codes = np.append(codes, np.uint32(2**32 - 1))
        self._begins = np.append(begins, len(sets.codes))
        self._ends = np.append(self._begins[1:], len(sets.codes))
        self._owners = np.repeat(np.arange(len(texts)), sizes)[order]
        self._answers: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
        for joke in jokes:
            words = normalise(joke.answer).split()
            if len(words) >= ANSWER_WORDS:
                self._answers[tuple(words[:ANSWER_WORDS])].add(f" {' '.join(words)} ")

    def in_text(self, text: str) -> bool:
        """Say whether a text holds any of the jokes."""
        normalised = normalise(text)
        return self._answer_in(normalised) or self._joke_in(normalised)

    def _answer_in(self, normalised: str) -> bool:
        words = normalised.split()
        padded = f" {normalised} "
        grams = zip(*(words[start:] for start in range(ANSWER_WORDS)), strict=False)
        return any(
            answer in padded
            for gram in grams
            if gram in self._answers
            for answer in self._answers[gram]
        )

    def _joke_in(self, normalised: str) -> bool:
        step = STRETCH_CHARACTERS // 2
        last = max(1, len(normalised) - step)
        stretches = [normalised[at : at + STRETCH_CHARACTERS] for at in range(0, last, step)]
        sets = ShingleSets.of(stretches)
        for begin, end in zip(sets.starts, sets.starts[1:], strict=False):
            codes = sets.codes[begin:end]
            places = np.searchsorted(self._codes, codes)
            places = places[self._codes[places] == codes]
            # Every posting list end to end, without a loop over shingles.
            lengths = self._ends[places] - self._begins[places]
            shifts = self._begins[places] - (np.cumsum(lengths) - lengths)
            owners = self._owners[np.arange(lengths.sum()) + np.repeat(shifts, lengths)]
            shared = np.bincount(owners, minlength=len(self._least))
            if (shared >= self._least).any():
                return True
        return False
