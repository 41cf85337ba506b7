"""The selection: the jokes on which a model is trained."""

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

MIN_WORKING_SCORE = 2
"""Minimum score of a rated joke that works: 0 no sense, 1 no point, 2 works, 3 funny."""


class Selection(NamedTuple):
    """The jokes on which a model is trained.

    Attributes:
        jokes: The jokes.
        flagged: Number of jokes left out because moderation flags them as offensive.
        leaked: Number of extra or rated jokes left out as near-duplicates of validation or test
            jokes.
        rated: Rated jokes and whether they work.
    """

    jokes: list[Joke]
    flagged: int
    leaked: int
    rated: list[tuple[Joke, bool]]


def validation_jokes(data: PreparedData, limit: int) -> list[PreparedJoke]:
    """Draw validation jokes from the training split: one in twenty, up to ``limit``.

    They are whole clusters of near-duplicates, so training jokes are no near-duplicates of them.
    They depend only on the prepared folder, so a model trained in several runs has seen none.

    Raises:
        DataError: If the training split is one cluster.
    """
    clusters: defaultdict[int, list[PreparedJoke]] = defaultdict(list)
    train = data.jokes("train")
    for prepared in train:
        clusters[prepared.cluster].append(prepared)
    if len(clusters) < 2:
        raise DataError("the training split needs two different jokes or more; prepare more jokes")
    order = list(clusters)
    random.Random(data.manifest.seed).shuffle(order)
    count = min(limit, math.ceil(len(train) / 20))
    drawn: list[PreparedJoke] = []
    for cluster in order:
        if len(drawn) + len(clusters[cluster]) <= count:
            drawn += clusters[cluster]
    return drawn or min(clusters.values(), key=len)


def select_jokes(
    data: PreparedData, config: TrainingConfig, validation: Sequence[PreparedJoke] = ()
) -> Selection:
    """Return the training jokes and the extra ones, filtered as configured.

    Args:
        data: The prepared folder.
        config: Decides which jokes are left out and which are added.
        validation: Jokes of the training split to leave out, with their near-duplicates.

    Raises:
        DataError: If the extra or rated jokes cannot be read.
    """
    held_out_clusters = {prepared.cluster for prepared in validation}
    chosen = [
        prepared for prepared in data.jokes("train") if prepared.cluster not in held_out_clusters
    ]
    if config.min_score:
        chosen = _popular(chosen, config.min_score)
    if config.dedup:
        firsts = {prepared.cluster: prepared for prepared in reversed(chosen)}
        chosen = [prepared for prepared in chosen if prepared is firsts[prepared.cluster]]
    extra = read_jokes(Path(config.extra_jokes)) if config.extra_jokes else []
    rated = read_jokes(Path(config.preferences)) if config.preferences else []
    held_out = [prepared.joke for prepared in (*data.jokes("test"), *validation)]
    new_extra, new_rated = _drop_leaked(extra, held_out), _drop_leaked(rated, held_out)
    verdicts = [(joke, (score or 0) >= MIN_WORKING_SCORE) for joke, score in new_rated]
    jokes = list(
        dict.fromkeys(
            [
                *(prepared.joke for prepared in chosen),
                *(joke for joke, _ in new_extra),
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
    leaked = len(extra) + len(rated) - len(new_extra) - len(new_rated)
    return Selection(kept, len(jokes) - len(kept), leaked, verdicts)


def read_jokes(path: Path) -> list[tuple[Joke, int | None]]:
    """Return the jokes of a CSV or JSONL file, cleaned, with their scores if it has any.

    Raises:
        DataError: If it cannot be read or contains no joke.
    """
    jokes = [
        (Joke(parsed.question, parsed.answer), row.score)
        for row in read_rows(Source.custom(path))
        if (parsed := parse_pair(row.question, row.answer)).outcome == "joke"
    ]
    if not jokes:
        raise DataError(f"{path} contains no joke")
    return jokes


def _popular(jokes: Sequence[PreparedJoke], min_score: int) -> list[PreparedJoke]:
    """Return the jokes of clusters in which at least one joke has the minimum score."""
    best: defaultdict[int, int] = defaultdict(int)
    for prepared in jokes:
        best[prepared.cluster] = max(best[prepared.cluster], prepared.score or 0)
    return [prepared for prepared in jokes if best[prepared.cluster] >= min_score]


def _drop_leaked(
    scored: Sequence[tuple[Joke, int | None]], held_out: Sequence[Joke]
) -> list[tuple[Joke, int | None]]:
    """Return the scored jokes that are no near-duplicates of held-out ones."""
    if not scored:
        return []
    jokes = [*(joke for joke, _ in scored), *held_out]
    is_held_out = np.arange(len(jokes)) >= len(scored)
    leaked = find_near_duplicates(jokes).near_duplicate_in(is_held_out)
    return [entry for entry, is_leaked in zip(scored, leaked, strict=False) if not is_leaked]
