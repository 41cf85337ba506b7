"""How good a model's own jokes are: validity, originality, diversity, offensiveness.

Each metric is also measured on the same number of held-out human jokes: none means anything alone,
and diversity depends on the number of jokes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joker.core.fingerprints import MIN_COPIED_ANSWER_WORDS, Fingerprints
from joker.core.joke import Joke, Sampling
from joker.core.similarity import (
    NEAR_COPY_JACCARD,
    ShingleSets,
    normalize,
    normalize_joke,
)
from joker.engines import Engine, GenerationTask
from joker.evaluation.bootstrap import Estimate, bootstrap_ratio, half_sample
from joker.generation.moderation import Moderator

FREQUENT = 25


@dataclass(frozen=True, slots=True)
class TextMetrics:
    """Metrics of a set of jokes, generated or human.

    Attributes:
        jokes: Number of jokes.
        copied: Share that copies a training joke in any way; None, like the next three,
            if the training jokes are unknown.
        copied_exactly: Share with the question and answer of a training joke.
        copied_nearly: Share with a Jaccard similarity of 0.5 or more to a training joke.
        copied_answer: Share with a training joke's answer of three words or more.
        near_duplicate: Share of near-duplicates by the model folder's fingerprints;
            None if the folder has none.
        distinct_questions: Distinct questions / all questions.
        distinct_1: Distinct words / all words.
        distinct_2: Distinct word bigrams / all.
        distinct_3: Distinct word trigrams / all.
        frequent_answers: Share whose answer is one of the 25 most frequent.
        frequent_questions: Share whose question is one of the 25 most frequent.
        flagged: Share that moderation flags as offensive.
    """

    jokes: int
    copied: Estimate | None
    copied_exactly: Estimate | None
    copied_nearly: Estimate | None
    copied_answer: Estimate | None
    near_duplicate: Estimate | None
    distinct_questions: Estimate
    distinct_1: Estimate
    distinct_2: Estimate
    distinct_3: Estimate
    frequent_answers: Estimate
    frequent_questions: Estimate
    flagged: Estimate


def text_metrics(
    jokes: Sequence[Joke],
    training: TrainingIndex | None,
    fingerprints: Fingerprints | None = None,
    *,
    seed: int,
) -> TextMetrics:
    """Measure one or more jokes.

    Args:
        jokes: Generated or human jokes.
        training: The training jokes, if known.
        fingerprints: The model folder's, if it has any.
        seed: Decides the resamples.
    """
    copies = [training.find_copy(joke) for joke in jokes] if training else []

    def share(marks: Sequence[bool]) -> Estimate | None:
        return bootstrap_ratio(marks, seed=seed) if marks else None

    moderator = Moderator.default()
    flags = [moderator.withholds(f"{joke.question}\n{joke.answer}") for joke in jokes]
    return TextMetrics(
        jokes=len(jokes),
        copied=share([bool(copy) for copy in copies]),
        copied_exactly=share([copy.exact for copy in copies]),
        copied_nearly=share([copy.near for copy in copies]),
        copied_answer=share([copy.answer for copy in copies]),
        near_duplicate=share([fingerprints.estimate(joke).near_duplicate for joke in jokes])
        if fingerprints
        else None,
        distinct_questions=_distinct([[_key(joke.question)] for joke in jokes], seed),
        distinct_1=distinct(jokes, 1, seed=seed),
        distinct_2=distinct(jokes, 2, seed=seed),
        distinct_3=distinct(jokes, 3, seed=seed),
        frequent_answers=frequent_share([joke.answer for joke in jokes], seed=seed),
        frequent_questions=frequent_share([joke.question for joke in jokes], seed=seed),
        flagged=bootstrap_ratio(flags, seed=seed),
    )


def first_tries(engine: Engine, count: int, *, seed: int) -> list[Joke | None]:
    """Generate texts without a prompt and parse each; None where it is not a joke.

    Nothing is checked, ranked or retried: this is the model alone.
    """
    seeds = np.random.default_rng(seed).integers(2**32, size=count).tolist()
    prompt_ids = engine.tokenizer.encode_prompt()
    tasks = [GenerationTask(prompt_ids, Sampling(), task_seed) for task_seed in seeds]
    completions = engine.generate(tasks)
    return [engine.tokenizer.parse(completion.token_ids) for completion in completions]


@dataclass(frozen=True, slots=True)
class Copy:
    """How a joke copies a training joke.

    Attributes:
        exact: Question and answer are the same after normalizing.
        near: The Jaccard similarity of character 5-grams is 0.5 or more.
        answer: The answer has three words or more and is the same after normalizing.
    """

    exact: bool
    near: bool
    answer: bool

    def __bool__(self) -> bool:
        return self.exact or self.near or self.answer


class TrainingIndex:
    """Training jokes, indexed by shingle to find the most similar one."""

    def __init__(self, jokes: Sequence[Joke]) -> None:
        texts = sorted({normalize_joke(joke) for joke in jokes})
        self._texts = frozenset(texts)
        self._answers = frozenset(normalize(joke.answer) for joke in jokes)
        sets = ShingleSets.of(texts)
        self._sizes = np.diff(sets.starts)
        order = np.argsort(sets.codes, kind="stable")
        self._codes = sets.codes[order]
        self._owners = np.repeat(np.arange(len(texts)), self._sizes)[order]

    def find_copy(self, joke: Joke) -> Copy:
        """Return how a joke copies any training joke."""
        text, answer = normalize_joke(joke), normalize(joke.answer)
        return Copy(
            exact=bool(text) and text in self._texts,
            near=self.similarity(joke) >= NEAR_COPY_JACCARD,
            answer=len(answer.split()) >= MIN_COPIED_ANSWER_WORDS and answer in self._answers,
        )

    def similarity(self, joke: Joke) -> float:
        """Return the Jaccard similarity to the most similar training joke."""
        own = ShingleSets.of([normalize_joke(joke)]).codes
        starts = np.searchsorted(self._codes, own, side="left")
        ends = np.searchsorted(self._codes, own, side="right")
        owners = [self._owners[start:end] for start, end in zip(starts, ends, strict=True)]
        if not owners:
            return 0.0
        shared = np.bincount(np.concatenate(owners), minlength=len(self._sizes))
        return float((shared / (len(own) + self._sizes - shared)).max(initial=0.0))


def distinct(jokes: Sequence[Joke], n: int, *, seed: int) -> Estimate:
    """Estimate distinct-n, distinct word n-grams / all; higher is more diverse.

    N-grams are taken from the normalized question and answer, none across the two.
    Source: Li et al., NAACL 2016, "A Diversity-Promoting Objective Function for Neural
    Conversation Models".
    """
    return _distinct([_ngrams(joke, n) for joke in jokes], seed)


def _distinct(items: Sequence[Sequence[Hashable]], seed: int) -> Estimate:
    """Estimate distinct items / all items, from the items of each joke."""
    id_of: dict[Hashable, int] = {}
    ids = [
        np.array([id_of.setdefault(item, len(id_of)) for item in joke_items], np.intp)
        for joke_items in items
    ]

    def share(indices: NDArray[np.intp]) -> float:
        drawn = np.concatenate([ids[index] for index in indices])
        return len(np.unique(drawn)) / max(1, len(drawn))

    return half_sample(share, len(items), seed)


def frequent_share(texts: Sequence[str], *, seed: int) -> Estimate:
    """Estimate the share of texts that are one of the 25 most frequent; lower is more diverse."""
    ids = np.unique(list(map(_key, texts)), return_inverse=True)[1]

    def share(indices: NDArray[np.intp]) -> float:
        return float(np.sort(np.bincount(ids[indices]))[-FREQUENT:].sum()) / len(indices)

    return half_sample(share, len(texts), seed)


def _key(text: str) -> str:
    """Return a key that is equal for texts that are equal after normalizing."""
    return normalize(text) or text


def _ngrams(joke: Joke, n: int) -> list[tuple[str, ...]]:
    parts = (normalize(joke.question).split(), normalize(joke.answer).split())
    return [tuple(words[i : i + n]) for words in parts for i in range(len(words) - n + 1)]
