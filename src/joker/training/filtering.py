"""The selection: which jokes a fine-tune reads."""

from __future__ import annotations

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
    """What a fine-tune reads.

    Attributes:
        jokes: The jokes.
        flagged: How many moderation took out as offensive.
        leaked: How many extra or rated jokes were near-duplicates of test jokes, and so left out.
        rated: Jokes and whether they work.
    """

    jokes: list[Joke]
    flagged: int
    leaked: int
    rated: list[tuple[Joke, bool]]


def select_jokes(data: PreparedData, config: TrainingConfig) -> Selection:
    """Return the training jokes and the extra ones that the configuration leaves.

    Raises:
        DataError: If the extra jokes cannot be read.
    """
    every = data.jokes("train")
    chosen = _popular(every, config.min_score) if config.min_score else every
    if config.dedup:
        firsts = {one.cluster: one for one in reversed(chosen)}
        chosen = [one for one in chosen if one is firsts[one.cluster]]
    extra = read_jokes(Path(config.extra)) if config.extra else []
    rated = read_jokes(Path(config.preferences)) if config.preferences else []
    test = [one.joke for one in data.jokes("test")]
    extra_apart, rated_apart = _apart(extra, test), _apart(rated, test)
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
        for row in read_rows(Source.own(path))
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
    scored: Sequence[tuple[Joke, int | None]], test: Sequence[Joke]
) -> list[tuple[Joke, int | None]]:
    """Return the jokes that are no near-duplicates of test jokes."""
    if not scored:
        return []
    tested = np.arange(len(scored) + len(test)) >= len(scored)
    near = find_near_duplicates([*(joke for joke, _ in scored), *test]).near_duplicate_in(tested)
    return [one for one, known in zip(scored, near, strict=False) if not known]
