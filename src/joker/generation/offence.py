"""The offence classifier: a linear model over hashed words and the moderation list's flags.

It decides what no single rule can: whether a joke on a topic is offensive. Its file has only
weights of hashed features, which reveal no joke. ``tools/train_offence_classifier.py`` trains it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

WORD_BUCKETS = 1 << 15
RULE_BUCKETS = 1 << 13
BUCKETS = WORD_BUCKETS + RULE_BUCKETS
_FILE = "offence.npz"
_STEM_LENGTH = 5
_MAX_WORDS = 300
"""Of longer texts only the beginning counts: the classifier was trained on jokes."""

Rule = tuple[str, str, str]
"""Category, severity and term of a rule."""


@dataclass(frozen=True, slots=True)
class OffenceClassifier:
    """A trained classifier.

    Attributes:
        weights: One for each of the `BUCKETS`, in units of ``scale``.
        scale: The quantization step.
        threshold: Score from which a text counts as offensive.
    """

    weights: NDArray[np.int8]
    scale: float
    threshold: float

    @staticmethod
    @cache
    def bundled() -> OffenceClassifier:
        """Return the package's own classifier, read once at the first call."""
        with resources.files("joker.generation").joinpath(_FILE).open("rb") as file:
            return OffenceClassifier.load(file)

    @classmethod
    def load(cls, file: Path | IO[bytes]) -> OffenceClassifier:
        """Load an ``.npz`` file."""
        with np.load(file, allow_pickle=False) as arrays:
            return cls(arrays["weights"], float(arrays["scale"]), float(arrays["threshold"]))

    def save(self, path: Path) -> None:
        """Save the classifier as an ``.npz`` file."""
        np.savez_compressed(
            path,
            weights=self.weights,
            scale=np.float64(self.scale),
            threshold=np.float64(self.threshold),
        )

    def score(self, words: Sequence[str], rules: Iterable[Rule]) -> float:
        """Return how offensive a text seems; the higher, the more.

        Args:
            words: Its words from `joker.generation.moderation.fold_words`.
            rules: The rules that match it.
        """
        buckets, values = features(words, rules)
        return float(self.weights[buckets] @ values) * self.scale

    def is_offensive(self, words: Sequence[str], rules: Iterable[Rule]) -> bool:
        """Return whether a text's score reaches the threshold; without words none does."""
        return bool(words) and self.score(words, rules) >= self.threshold


def features(
    words: Sequence[str], rules: Iterable[Rule]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the buckets of a text's features and their values.

    Words, stems and pairs of neighbouring words are divided by the square root of the number of
    words, so that long texts do not weigh more; the rules' features are not.
    """
    words = words[:_MAX_WORDS]
    value = 3 / math.sqrt(len(words) or 1)
    of_words = {f"w {word}": value for word in words}
    of_words |= {
        f"s {word[:_STEM_LENGTH]}": value / 2 for word in words if len(word) >= _STEM_LENGTH
    }
    of_words |= {f"p {left} {right}": value / 2 for left, right in pairwise(words)}
    matched = set(rules)
    categories = {category for category, _, _ in matched}
    of_rules = {f"r {category} {term}" for category, _, term in matched}
    of_rules |= {f"c {category} {severity}" for category, severity, _ in matched}
    of_rules |= {f"v {severity}" for _, severity, _ in matched}
    of_rules.add(f"n {min(len(categories), 3)}")
    buckets = [zlib.crc32(name.encode()) % WORD_BUCKETS for name in of_words]
    buckets += [WORD_BUCKETS + zlib.crc32(name.encode()) % RULE_BUCKETS for name in of_rules]
    return np.array(buckets, np.int32), np.array([*of_words.values(), *[1.0] * len(of_rules)])
