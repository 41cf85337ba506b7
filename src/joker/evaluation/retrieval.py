"""Punchline retrieval: does the model know which of ten answers belongs to a question?

Draws the answers and evaluates the scores of `joker.evaluation.likelihood_metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from joker.core.joke import Joke
from joker.core.similarity import normalise

CHOICES = 10
CHANCE = 1 / CHOICES

_NEIGHBOURS = 50  # distractors are drawn from this many answers nearest in length


def draw_choices(
    jokes: Sequence[Joke], clusters: Sequence[int], *, limit: int, seed: int
) -> NDArray[np.intp]:
    """Draw nine other answers to choose from for each of some jokes.

    They are drawn from the 50 answers nearest in length that differ from one another and
    from those of the joke's own cluster of near-duplicates.

    Args:
        jokes: Where questions and answers come from.
        clusters: Each joke's cluster.
        limit: Maximum number of questions, chosen at random.
        seed: Seed of all draws.

    Returns:
        Indices into ``jokes``, a row of ten for each question that begins with the joke's
        own; no rows if there are too few different answers.
    """
    rng = np.random.default_rng(seed)
    cluster_of = np.asarray(clusters)
    _, answer_of = np.unique(
        [normalise(joke.answer) or joke.answer for joke in jokes], return_inverse=True
    )
    order = rng.permutation(len(jokes))
    _, first = np.unique(answer_of[order], return_index=True)
    pool = order[np.sort(first)]  # one joke for each answer, in random order
    lengths = np.array([len(joke.answer.encode()) for joke in jokes])
    rows = []
    for joke in np.sort(rng.permutation(len(jokes))[:limit]):
        own_answers = answer_of[cluster_of == cluster_of[joke]]
        others = pool[~np.isin(answer_of[pool], own_answers)]
        if len(others) < CHOICES - 1:
            continue
        distance = np.abs(lengths[others] - lengths[joke])
        nearest = others[np.argsort(distance, kind="stable")[:_NEIGHBOURS]]
        rows.append([joke, *rng.choice(nearest, CHOICES - 1, replace=False)])
    return np.array(rows, dtype=np.intp).reshape(-1, CHOICES)


def hits(scores: ArrayLike) -> NDArray[np.float64]:
    """Return for each question whether its own answer, the first, has the highest score.

    Args:
        scores: log p(answer | question) - log p(answer), of shape (questions, choices).

    Returns:
        1 for a hit, 0 for a miss, 1 / k for a tie of k answers.
    """
    table = np.asarray(scores, dtype=np.float64)
    best = table == table.max(axis=1, keepdims=True)
    shares: NDArray[np.float64] = best[:, 0] / best.sum(axis=1)
    return shares
