"""Fingerprints of training jokes: small enough to ship, enough to detect a repeated joke.

The jokes themselves stay out of the model folder. Of each only a sketch is kept, the
smallest of its 5-gram hashes under 40 permutations (MinHash, Broder 1997), a byte each
(b-bit MinHash, Li and König 2010, https://arxiv.org/abs/0908.0014), and a hash of its
answer. Two sketches agree in a share of places that estimates the Jaccard similarity of
`joker.core.similarity`, with a standard error of at most 0.08.

Training writes them, the teller reads them. Exact figures, with the training jokes at
hand, are `joker.evaluation.text_metrics`'s.
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
from joker.core.similarity import ShingleSets, mix, normalise, normalise_joke, permutations

FILE = "fingerprints.npz"
PERMUTATIONS = 40
NEAR_DUPLICATE_SIMILARITY = 0.4
"""From this estimate on a joke counts as told again: so far below `NEAR_COPY_JACCARD` that the
estimate's error hides few near-duplicates."""
SAME_ANSWER_WORDS = 3
"""From so many words on, a joke with the answer of a training joke is one told again."""
STOCK_QUESTIONS = 3
"""An answer that training jokes give to so many different questions is a stock phrase: a joke that
puts it to yet another question is a new one."""

_FACTORS, _MASKS = permutations(b"fingerprints", PERMUTATIONS)
_TEXTS_AT_ONCE = 2_000
_CHANCE = 1 / 256
"""Share of places in which the bytes of unlike sketches agree."""


class OriginalityEstimate(NamedTuple):
    """How near a joke comes to what was read in training.

    Attributes:
        similarity: Estimated Jaccard similarity to the most similar training joke.
        near_duplicate: Whether that makes it a likely near-duplicate, or its answer of three words
            or more is a training joke's.
    """

    similarity: float
    near_duplicate: bool


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Sketches of jokes and hashes of their answers.

    Attributes:
        sketches: Shape (jokes, 40), bytes.
        answers: Sorted 32-bit hashes of the answers of three words or more, stock phrases left out.
    """

    sketches: NDArray[np.uint8]
    answers: NDArray[np.uint32]

    @classmethod
    def of(cls, jokes: Sequence[Joke]) -> Fingerprints:
        """Take the fingerprints of jokes, each once however often it is there."""
        texts = sorted({normalise_joke(joke) for joke in jokes} - {""})
        starts = range(0, len(texts), _TEXTS_AT_ONCE)
        parts = [_sketch(texts[start : start + _TEXTS_AT_ONCE]) for start in starts]
        parts.append(np.empty((0, PERMUTATIONS), np.uint8))
        answers = {answer for joke in jokes if (answer := _long_answer(joke))}
        answers -= stock_phrases(jokes)
        hashes = np.array([_hash(answer) for answer in answers], np.uint32)
        return cls(np.unique(np.concatenate(parts), axis=0), np.unique(hashes))

    @classmethod
    def join(cls, parts: Iterable[Fingerprints]) -> Fingerprints:
        """Return the fingerprints of all parts."""
        held = list(parts)
        return cls(
            np.unique(np.concatenate([part.sketches for part in held]), axis=0),
            np.unique(np.concatenate([part.answers for part in held])),
        )

    @classmethod
    def read(cls, folder: Path) -> Fingerprints | None:
        """Read a model folder's fingerprints; None where it has none.

        Raises:
            ModelFolderError: If they are damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                found = cls(arrays["sketches"], arrays["answers"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ModelFolderError(f"cannot read {path}: {error}") from error
        if found.sketches.dtype != np.uint8 or found.sketches.shape[1:] != (PERMUTATIONS,):
            raise ModelFolderError(
                f"{path} holds fingerprints of another kind; train the model again"
            )
        return found

    def write(self, folder: Path) -> None:
        """Write the fingerprints into a model folder."""
        np.savez(folder / FILE, sketches=self.sketches, answers=self.answers)

    def estimate(self, joke: Joke) -> OriginalityEstimate:
        """Say how near a joke comes to those that were fingerprinted."""
        text, answer = normalise_joke(joke), _long_answer(joke)
        similarity = 0.0
        if text and len(self.sketches):
            agreeing = (self.sketches == _sketch([text])).sum(axis=1).max() / PERMUTATIONS
            similarity = max(0.0, float(agreeing - _CHANCE) / (1 - _CHANCE))
        hashed = _hash(answer) if answer else None
        known = hashed is not None and bool(np.isin(np.uint32(hashed), self.answers))
        return OriginalityEstimate(
            similarity, near_duplicate=known or similarity >= NEAR_DUPLICATE_SIMILARITY
        )


def stock_phrases(jokes: Iterable[Joke]) -> set[str]:
    """Return the normalised answers that `STOCK_QUESTIONS` or more different questions have."""
    questions: defaultdict[str, set[str]] = defaultdict(set)
    for joke in jokes:
        questions[normalise(joke.answer)].add(normalise(joke.question))
    return {answer for answer, asked in questions.items() if len(asked) >= STOCK_QUESTIONS}


def _sketch(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Return the sketches of normalised texts that are not empty."""
    sets = ShingleSets.of(texts)
    mixed = mix(sets.codes)
    sketches = np.empty((len(texts), PERMUTATIONS), np.uint8)
    for place, (factor, mask) in enumerate(zip(_FACTORS, _MASKS, strict=True)):
        smallest = np.minimum.reduceat(mixed * factor ^ mask, sets.starts[:-1])
        # The smallest of many hashes begins with zeros; its last bits are still even.
        sketches[:, place] = smallest & np.uint32(0xFF)
    return sketches


def _long_answer(joke: Joke) -> str:
    answer = normalise(joke.answer)
    return answer if len(answer.split()) >= SAME_ANSWER_WORDS else ""


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
