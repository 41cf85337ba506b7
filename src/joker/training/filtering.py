"""The selection: which jokes a model is trained on."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from joker.core.errors import DataError
from joker.core.joke import Joke
from joker.data.near_duplicates import find_near_duplicates
from joker.data.parsing import parse_pair
from joker.data.prepared import PreparedData, PreparedJoke
from joker.data.sources import Source, read_rows
from joker.generation.moderation import Moderator
from joker.training.config import TrainingConfig

WORKS_FROM = 2
"""Score of a rated joke from which it works: 0 no sense, 1 no point, 2 works, 3 funny."""


class Selection(NamedTuple):
    """What a model is trained on.

    Attributes:
        jokes: The jokes.
        flagged: How many moderation took out as offensive.
        leaked: How many extra or rated jokes were left out as near-duplicates of jokes that are
            measured on.
        rated: Jokes and whether they work.
    """

    jokes: list[Joke]
    flagged: int
    leaked: int
    rated: list[tuple[Joke, bool]]


def validation_jokes(data: PreparedData, limit: int) -> list[PreparedJoke]:
    """Draw jokes from the training split to measure on while training: one in twenty, or ``limit``.

    They make up whole clusters of near-duplicates, so that none of them is known from training.
    They depend on the prepared folder alone: a model trained in several steps has read none.

    Raises:
        DataError: If the training split is one cluster.
    """
    clusters: defaultdict[int, list[PreparedJoke]] = defaultdict(list)
    train = data.jokes("train")
    for one in train:
        clusters[one.cluster].append(one)
    if len(clusters) < 2:
        raise DataError("the training split needs two different jokes or more; prepare more jokes")
    order = list(clusters)
    random.Random(data.manifest.seed).shuffle(order)
    wanted = min(limit, math.ceil(len(train) / 20))
    drawn: list[PreparedJoke] = []
    for cluster in order:
        if len(drawn) + len(clusters[cluster]) <= wanted:
            drawn += clusters[cluster]
    return drawn or min(clusters.values(), key=len)


def select_jokes(
    data: PreparedData, config: TrainingConfig, validation: Sequence[PreparedJoke] = ()
) -> Selection:
    """Return the training jokes and the extra ones that the configuration leaves.

    Args:
        data: The prepared folder.
        config: Decides which jokes are left out and which are added.
        validation: Jokes of the training split that are not read; nor are their near-duplicates.

    Raises:
        DataError: If the extra jokes cannot be read.
    """
    aside = {one.cluster for one in validation}
    every = [one for one in data.jokes("train") if one.cluster not in aside]
    chosen = _popular(every, config.min_score) if config.min_score else every
    if config.dedup:
        firsts = {one.cluster: one for one in reversed(chosen)}
        chosen = [one for one in chosen if one is firsts[one.cluster]]
    extra = read_jokes(Path(config.extra_jokes)) if config.extra_jokes else []
    rated = read_jokes(Path(config.preferences)) if config.preferences else []
    measured = [one.joke for one in (*data.jokes("test"), *validation)]
    extra_apart, rated_apart = _apart(extra, measured), _apart(rated, measured)
    verdicts = [(joke, (score or 0) >= WORKS_FROM) for joke, score in rated_apart]
    jokes = list(
        dict.fromkeys(
            [
                *(one.joke for one in chosen),
                *(joke for joke, _ in extra_apart),
                *(joke for joke, works in verdicts if works),
            ]
        )
    )
    kept = jokes
    if config.safe:
        moderator = Moderator.default()
        kept = [
            joke for joke in jokes if not moderator.withholds(f"{joke.question}\n{joke.answer}")
        ]
    leaked = len(extra) + len(rated) - len(extra_apart) - len(rated_apart)
    return Selection(kept, len(jokes) - len(kept), leaked, verdicts)


def read_jokes(path: Path) -> list[tuple[Joke, int | None]]:
    """Return the jokes of a CSV or JSONL file, cleaned, with their scores where it has any.

    Raises:
        DataError: If it cannot be read or holds none.
    """
    jokes = [
        (Joke(parsed.question, parsed.answer), row.score)
        for row in read_rows(Source.custom(path))
        if (parsed := parse_pair(row.question, row.answer)).outcome == "joke"
    ]
    if not jokes:
        raise DataError(f"there is no joke in {path}")
    return jokes


def _popular(jokes: Sequence[PreparedJoke], least: int) -> list[PreparedJoke]:
    """Return the jokes of clusters in which a post has so many points."""
    best: defaultdict[int, int] = defaultdict(int)
    for one in jokes:
        best[one.cluster] = max(best[one.cluster], one.score or 0)
    return [one for one in jokes if best[one.cluster] >= least]


def _apart(
    scored: Sequence[tuple[Joke, int | None]], measured: Sequence[Joke]
) -> list[tuple[Joke, int | None]]:
    """Return the jokes that are no near-duplicates of jokes that are measured on."""
    if not scored:
        return []
    others = np.arange(len(scored) + len(measured)) >= len(scored)
    jokes = [*(joke for joke, _ in scored), *measured]
    near = find_near_duplicates(jokes).near_duplicate_in(others)
    return [one for one, known in zip(scored, near, strict=False) if not known]
