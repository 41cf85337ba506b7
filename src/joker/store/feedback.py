"""Feedback: votes as rated jokes for ``joker train --preferences``, and to compare models."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, TextIO

from joker.evaluation.bootstrap import bootstrap_ratio
from joker.store.votes import Votes, wilson_lower_bound

if TYPE_CHECKING:
    from joker.store.store import Store

DEFAULT_MIN_VOTES = 2
_ROUNDING_ERROR = 1e-9


@dataclass(frozen=True, slots=True)
class Feedback:
    """A rated joke: one row of a feedback file.

    Attributes:
        id: The joke's id in the store.
        question: The set-up.
        answer: The punchline.
        score: From 0 to 3; see `score_votes`.
        up: Number of clients that like it.
        down: Number of clients that do not.
        report: Number of clients that reported it.
    """

    id: str
    question: str
    answer: str
    score: int
    up: int
    down: int
    report: int


@dataclass(frozen=True, slots=True)
class Approval:
    """The votes on a model's jokes.

    Attributes:
        model: The model's name.
        picked: True for the jokes that readers picked from its drafts, false for all others.
        jokes: Number of jokes with votes.
        votes: All votes on them; a report counts as a dislike.
        interval: 95% interval of `liked`.
    """

    model: str
    picked: bool
    jokes: int
    votes: Votes
    interval: tuple[float, float]

    @property
    def liked(self) -> float:
        """The share of 👍 among all votes."""
        return self.votes.up / self.votes.total


def liked_interval(votes: Sequence[Votes]) -> tuple[float, float]:
    """Return a 95% interval of the share of 👍 that also holds for a model's other jokes.

    Votes on the same joke are correlated. So this is the Wilson interval for the effective sample
    size: the number of independent votes whose share would vary as much as this one does when jokes
    are resampled (Korn and Graubard, Survey Methodology 24 (1998), 193-201). If it does not vary,
    each joke counts as one vote.

    Args:
        votes: The votes on each joke; at least one joke, and at least one vote on each.
    """
    totals = [joke.total for joke in votes]
    liked = bootstrap_ratio([joke.up for joke in votes], totals, seed=1)
    size = float(len(votes))
    if liked.standard_error > _ROUNDING_ERROR:
        variance = liked.standard_error**2 * len(votes) / (len(votes) - 1)
        size = min(float(sum(totals)), liked.value * (1 - liked.value) / variance)
    up = liked.value * size
    return wilson_lower_bound(up, size), 1 - wilson_lower_bound(size - up, size)


def score_votes(votes: Votes, min_votes: int = DEFAULT_MIN_VOTES) -> int | None:
    """Return a joke's score on the scale of rated jokes, or None without a majority.

    A majority of 👍 scores 2, a majority of 👎 scores 1. If it is significant, that is if the 95%
    Wilson interval of its share excludes one half, as with 4 of 4 or 8 of 9, they score 3 and 0.
    Ties and jokes with fewer than ``min_votes`` 👍 and 👎 have no score.
    """
    total = votes.up + votes.down
    if total < min_votes or votes.up == votes.down:
        return None
    significant = wilson_lower_bound(max(votes.up, votes.down), total) > 0.5
    if votes.up > votes.down:
        return 3 if significant else 2
    return 0 if significant else 1


def read_feedback(store: Store, min_votes: int = DEFAULT_MIN_VOTES) -> Iterator[Feedback]:
    """Yield the jokes that have a score, the oldest first.

    Hidden jokes score 0 regardless of their other votes: training must not learn them.

    Raises:
        StoreDownError: If the store is down.
    """
    for joke in store.voted():
        score = 0 if joke.hidden else score_votes(joke.votes, min_votes)
        if score is not None:
            votes = asdict(joke.votes)
            yield Feedback(joke.id, joke.question, joke.answer, score, **votes)


def compare_models(store: Store) -> list[Approval]:
    """Return each model's approval, with a separate one for the jokes that readers picked.

    Raises:
        StoreDownError: If the store is down.
    """
    groups: dict[tuple[str, bool], list[Votes]] = {}
    for joke in store.voted():
        groups.setdefault((joke.model, joke.picked), []).append(joke.votes)
    return [
        Approval(model, picked, len(votes), sum(votes, Votes()), liked_interval(votes))
        for (model, picked), votes in sorted(groups.items())
    ]


def write_csv(rows: Iterator[Feedback], file: TextIO) -> int:
    """Write rows as CSV with a header, and return their number."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(field.name for field in fields(Feedback))
    count = 0
    for row in rows:
        writer.writerow(asdict(row).values())
        count += 1
    return count


def write_jsonl(rows: Iterator[Feedback], file: TextIO) -> int:
    """Write one JSON object per row and line, and return their number."""
    count = 0
    for row in rows:
        file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        count += 1
    return count
