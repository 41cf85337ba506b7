"""Votes on jokes: the rating that jokes are ranked by, and feedback to train and compare models."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Literal, TextIO, get_args

from joker.evaluation.bootstrap import bootstrap_ratio

if TYPE_CHECKING:
    from joker.store import Store

Vote = Literal["up", "down", "report"]
VOTES: tuple[Vote, ...] = get_args(Vote)

_Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95% interval."""
_ROUNDING_ERROR = 1e-9


@dataclass(frozen=True, slots=True)
class Votes:
    """The current votes on one joke, one per client: likes, dislikes and reports."""

    up: int = 0
    down: int = 0
    report: int = 0

    @property
    def total(self) -> int:
        """Number of all votes."""
        return self.up + self.down + self.report

    @property
    def rating(self) -> float:
        """Lower bound of the share of clients who like the joke; jokes are ranked by it."""
        return wilson_lower_bound(self.up, self.total)

    def __add__(self, other: Votes) -> Votes:
        return Votes(self.up + other.up, self.down + other.down, self.report + other.report)

    def changed(self, old: Vote | None, new: Vote) -> Votes:
        """Return the votes after a client has cast its first vote or replaced its old one."""
        counts = {vote: getattr(self, vote) for vote in VOTES}
        if old is not None:
            counts[old] -= 1
        counts[new] += 1
        return Votes(**counts)


def wilson_lower_bound(successes: float, trials: float) -> float:
    """Return the lower bound of a 95% Wilson score interval for a proportion; 0 without trials.

    Unlike the plain share, it ranks 9 of 10 above 1 of 1. Source: Wilson, "Probable inference,
    the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not trials:
        return 0.0
    share, z2 = successes / trials, _Z_95**2
    margin = _Z_95 * math.sqrt((share * (1 - share) + z2 / (4 * trials)) / trials)
    return max(0.0, (share + z2 / (2 * trials) - margin) / (1 + z2 / trials))


@dataclass(frozen=True, slots=True)
class Feedback:
    """A rated joke, one row of a feedback file; the score is that of `score_votes`."""

    id: str
    question: str
    answer: str
    score: int
    up: int
    down: int
    report: int


@dataclass(frozen=True, slots=True)
class Approval:
    """The votes on a model's jokes that readers picked from its drafts, or on all others.

    A report counts as a dislike. The interval is a 95% interval of `liked`.
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
    each joke counts as one vote. Each of the jokes, at least one, must have votes.
    """
    totals = [joke.total for joke in votes]
    liked = bootstrap_ratio([joke.up for joke in votes], totals, seed=1)
    size = float(len(votes))
    if liked.standard_error > _ROUNDING_ERROR:
        variance = liked.standard_error**2 * len(votes) / (len(votes) - 1)
        size = min(float(sum(totals)), liked.value * (1 - liked.value) / variance)
    up = liked.value * size
    return wilson_lower_bound(up, size), 1 - wilson_lower_bound(size - up, size)


def score_votes(votes: Votes, min_votes: int) -> int | None:
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


def read_feedback(store: Store, min_votes: int) -> Iterator[Feedback]:
    """Yield the jokes that have a score, the oldest first.

    Hidden jokes score 0 regardless of their other votes: training must not learn them.
    """
    for joke in store.voted():
        score = 0 if joke.hidden else score_votes(joke.votes, min_votes)
        if score is not None:
            votes = asdict(joke.votes)
            yield Feedback(joke.id, joke.question, joke.answer, score, **votes)


def compare_models(store: Store) -> list[Approval]:
    """Return each model's approval, with a separate one for the jokes that readers picked."""
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
