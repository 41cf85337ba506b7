"""What a model's own jokes are worth: validity, originality, diversity, offence.

Every figure of generated jokes is measured in the same way on people's held-out jokes,
because none means anything alone. Called by `joker.evaluation.evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke
from joker.core.sampling import Sampling
from joker.engines.protocol import Engine, Request
from joker.evaluation.bootstrap import Estimate, bootstrap_ratio
from joker.evaluation.diversity import distinct, distinct_share, frequent_share
from joker.evaluation.originality import TrainingIndex
from joker.generation.moderation import Moderator


@dataclass(frozen=True, slots=True)
class TextMetrics:
    """Figures of a set of jokes, generated or people's.

    Attributes:
        jokes: How many there are.
        copied: Share that copies a training joke in any way; None, as the next three,
            where the training jokes are unknown.
        copied_exactly: Share with the question and answer of a training joke.
        copied_nearly: Share with a Jaccard similarity of 0.5 or more to a training joke.
        copied_answer: Share with a training joke's answer of three words or more.
        near_duplicate: Share that the model folder's fingerprints recognise;
            None where the folder has none.
        distinct_questions: Different over all questions.
        distinct_1: Different over all words.
        distinct_2: Different over all pairs of neighbouring words.
        distinct_3: Different over all runs of three words.
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
    """Measure a set of at least one joke.

    Args:
        jokes: Generated jokes, or people's.
        training: What the model was trained on, if known.
        fingerprints: The model folder's, if it has any.
        seed: Decides the resamples.
    """
    copies = [training.copy(joke) for joke in jokes] if training else []

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
        distinct_questions=distinct_share([joke.question for joke in jokes], seed=seed),
        distinct_1=distinct(jokes, 1, seed=seed),
        distinct_2=distinct(jokes, 2, seed=seed),
        distinct_3=distinct(jokes, 3, seed=seed),
        frequent_answers=frequent_share([joke.answer for joke in jokes], seed=seed),
        frequent_questions=frequent_share([joke.question for joke in jokes], seed=seed),
        flagged=bootstrap_ratio(flags, seed=seed),
    )


def first_tries(engine: Engine, count: int, *, seed: int) -> list[Joke | None]:
    """Let an engine invent texts from nothing, and parse each; None tells no joke.

    Nothing is checked, ranked or tried again: this is what the model itself does.
    """
    seeds = np.random.default_rng(seed).integers(2**32, size=count).tolist()
    requests = [Request("", Sampling(), each) for each in seeds]
    return [engine.tokenizer.parse(done.token_ids) for done in engine.generate(requests)]
