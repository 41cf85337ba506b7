"""Fingerprints of training jokes: small enough to ship, enough to detect a repeated joke.

The model folder does not contain its training jokes. It has a sketch of each, one byte of the
smallest of its 5-gram hashes under each of 40 permutations (MinHash, Broder 1997; b-bit MinHash,
Li and König 2010, https://arxiv.org/abs/0908.0014), and a hash of its answer. The share of
positions in which two sketches agree estimates the Jaccard similarity of `joker.core.similarity`,
with a standard error of at most 0.08.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from joker.core.errors import ModelFolderError
from joker.core.joke import Joke
from joker.core.similarity import ShingleSets, mix, normalize, normalize_joke, permutations

FILE = "fingerprints.npz"
PERMUTATIONS = 40
NEAR_DUPLICATE_SIMILARITY = 0.4
"""Far enough below `NEAR_COPY_JACCARD` that the estimate's error hides few near-duplicates."""
MIN_COPIED_ANSWER_WORDS = 3
"""Words of an answer from which any joke with the same answer is a near-duplicate."""
MIN_STOCK_QUESTIONS = 3
"""Number of questions from which their common answer is a stock phrase, which any joke may use."""

_FACTORS, _MASKS = permutations(b"fingerprints", PERMUTATIONS)
_BATCH_TEXTS = 2_000
_CHANCE_AGREEMENT = 1 / 256
"""Share of positions in which unrelated sketches agree by chance."""


class OriginalityEstimate(NamedTuple):
    """The Jaccard similarity of a joke to the most similar training joke.

    The joke is a near-duplicate if the similarity makes that likely, or if its answer has three
    words or more and is a training joke's.
    """

    similarity: float
    near_duplicate: bool


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Sketches of jokes and hashes of their answers.

    Attributes:
        sketches: Shape (jokes, 40), bytes.
        answers: Hashes of the answers of three words or more, without stock phrases.
    """

    sketches: NDArray[np.uint8]
    answers: NDArray[np.uint32]

    @classmethod
    def of(cls, jokes: Sequence[Joke]) -> Fingerprints:
        """Return the fingerprints of jokes; repeated jokes count once."""
        texts = sorted({normalize_joke(joke) for joke in jokes} - {""})
        starts = range(0, len(texts), _BATCH_TEXTS)
        parts = [_sketch(texts[start : start + _BATCH_TEXTS]) for start in starts]
        parts.append(np.empty((0, PERMUTATIONS), np.uint8))
        answers = {answer for joke in jokes if (answer := _long_answer(joke))}
        answers -= stock_phrases(jokes)
        hashes = np.array([hash_text(answer) for answer in answers], np.uint32)
        return cls(np.unique(np.concatenate(parts), axis=0), np.unique(hashes))

    @classmethod
    def join(cls, parts: Iterable[Fingerprints]) -> Fingerprints:
        """Combine fingerprints."""
        sketches, answers = zip(*((part.sketches, part.answers) for part in parts), strict=True)
        return cls(np.unique(np.concatenate(sketches), axis=0), np.unique(np.concatenate(answers)))

    @classmethod
    def load(cls, folder: Path) -> Fingerprints | None:
        """Load a model folder's fingerprints; None if it has none.

        Raises:
            ModelFolderError: If they are damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                # Column-major order makes `estimate` six times as fast.
                loaded = cls(np.asfortranarray(arrays["sketches"]), arrays["answers"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ModelFolderError(f"cannot read {path}: {error}") from error
        if loaded.sketches.dtype != np.uint8 or loaded.sketches.shape[1:] != (PERMUTATIONS,):
            raise ModelFolderError(
                f"{path} has fingerprints in another format; train the model again"
            )
        return loaded

    def save(self, folder: Path) -> None:
        """Save the fingerprints in a model folder."""
        np.savez(folder / FILE, sketches=self.sketches, answers=self.answers)

    def estimate(self, joke: Joke) -> OriginalityEstimate:
        """Estimate how similar a joke is to the fingerprinted ones."""
        text, answer = normalize_joke(joke), _long_answer(joke)
        similarity = 0.0
        if text and len(self.sketches):
            same = self.sketches == _sketch([text])
            agreeing = same.sum(axis=1, dtype=np.uint8).max() / PERMUTATIONS
            similarity = max(0.0, float(agreeing - _CHANCE_AGREEMENT) / (1 - _CHANCE_AGREEMENT))
        copied = bool(answer) and hash_text(answer) in self.answers
        return OriginalityEstimate(
            similarity, near_duplicate=copied or similarity >= NEAR_DUPLICATE_SIMILARITY
        )


def stock_phrases(jokes: Iterable[Joke]) -> set[str]:
    """Return the normalized answers that `MIN_STOCK_QUESTIONS` or more different questions have."""
    questions: defaultdict[str, set[str]] = defaultdict(set)
    for joke in jokes:
        questions[normalize(joke.answer)].add(normalize(joke.question))
    return {answer for answer, asked in questions.items() if len(asked) >= MIN_STOCK_QUESTIONS}


def _sketch(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Return the sketches of normalized texts that are not empty."""
    sets = ShingleSets.of(texts)
    mixed = mix(sets.codes)
    sketches = np.empty((len(texts), PERMUTATIONS), np.uint8)
    for column, (factor, mask) in enumerate(zip(_FACTORS, _MASKS, strict=True)):
        smallest = np.minimum.reduceat(mixed * factor ^ mask, sets.starts[:-1])
        # The smallest of many hashes begins with zeros; its last bits are still uniform.
        sketches[:, column] = smallest & np.uint32(0xFF)
    return sketches


def _long_answer(joke: Joke) -> str:
    answer = normalize(joke.answer)
    return answer if len(answer.split()) >= MIN_COPIED_ANSWER_WORDS else ""


def hash_text(text: str) -> int:
    """Return a hash from 0 to 2**32 - 1, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
