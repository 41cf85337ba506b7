"""Feedback: votes as rated jokes for ``joker train --preferences``, and as a verdict on models."""

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
_NOTHING = 1e-9
"""A standard error that is due to rounding."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """A rated joke: one row of a feedback file.

    Attributes:
        id: The joke's id in the store.
        question: The set-up.
        answer: The punchline.
        score: From 0 to 3; see `score_votes`.
        up: Clients that like it.
        down: Clients that do not.
        report: Clients that reported it.
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
    """What people think of a model's jokes.

    Attributes:
        model: The model's name.
        picked: Whether these are the jokes that readers picked among its drafts, or the others.
        jokes: The number of jokes with votes.
        votes: All votes on them; a report counts as a dislike.
        interval: The 95% interval of the share of votes that like the joke.
    """

    model: str
    picked: bool
    jokes: int
    votes: Votes
    interval: tuple[float, float]

    @property
    def liked(self) -> float:
        """The share of votes that like the joke."""
        return self.votes.up / self.votes.total


def liked_interval(votes: Sequence[Votes]) -> tuple[float, float]:
    """Return the 95% interval of the share of 👍, which must hold for a model's other jokes, too.

    Votes on the same joke resemble each other. So it is the Wilson interval of as many independent
    votes as would vary as much as the share does when jokes are resampled (effective sample size;
    Korn and Graubard, Survey Methodology 24 (1998), 193-201). Where nothing varies, all votes on a
    joke count as one.

    Args:
        votes: Those on each joke; at least one joke, and at least one vote on each.
    """
    totals = [each.total for each in votes]
    liked = bootstrap_ratio([each.up for each in votes], totals, seed=1)
    independent = float(len(votes))
    if liked.standard_error > _NOTHING:
        unbiased = liked.standard_error**2 * len(votes) / (len(votes) - 1)
        independent = min(float(sum(totals)), liked.value * (1 - liked.value) / unbiased)
    up = liked.value * independent
    return wilson_lower_bound(up, independent), 1 - wilson_lower_bound(
        independent - up, independent
    )


def score_votes(votes: Votes, min_votes: int = DEFAULT_MIN_VOTES) -> int | None:
    """Return a joke's score on the scale of rated jokes, or None if the votes do not say.

    The majority of 👍 and 👎 decides whether the joke works (2 or 3) or does not (0 or 1). It is
    3 or 0 if the majority is certain: if the 95% Wilson interval of the share excludes one half,
    as with 4 of 4 or 8 of 9. Ties and jokes with fewer than ``min_votes`` of these have no score.
    """
    cast = votes.up + votes.down
    if cast < min_votes or votes.up == votes.down:
        return None
    certain = wilson_lower_bound(max(votes.up, votes.down), cast) > 0.5
    if votes.up > votes.down:
        return 3 if certain else 2
    return 0 if certain else 1


def read_feedback(store: Store, min_votes: int = DEFAULT_MIN_VOTES) -> Iterator[Feedback]:
    """Yield the jokes on which people agree, the oldest first.

    Hidden jokes have score 0, whatever the other votes: training must not learn them.

    Raises:
        StoreDownError: If the store is down.
    """
    for joke in store.voted():
        score = 0 if joke.hidden else score_votes(joke.votes, min_votes)
        if score is not None:
            votes = asdict(joke.votes)
            yield Feedback(joke.id, joke.question, joke.answer, score, **votes)


def compare_models(store: Store) -> list[Approval]:
    """Return what people think of each model's jokes, those that readers picked apart.

    Raises:
        StoreDownError: If the store is down.
    """
    votes: dict[tuple[str, bool], list[Votes]] = {}
    for joke in store.voted():
        votes.setdefault((joke.model, joke.picked), []).append(joke.votes)
    return [
        Approval(model, picked, len(each), sum(each, Votes()), liked_interval(each))
        for (model, picked), each in sorted(votes.items())
    ]


def write_csv(rows: Iterator[Feedback], file: TextIO) -> int:
    """Write rows as CSV with a header; return how many there were."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(field.name for field in fields(Feedback))
    count = 0
    for row in rows:
        writer.writerow(asdict(row).values())
        count += 1
    return count


def write_jsonl(rows: Iterator[Feedback], file: TextIO) -> int:
    """Write rows as one JSON object a line; return how many there were."""
    count = 0
    for row in rows:
        file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        count += 1
    return count
