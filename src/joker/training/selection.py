"""The selection: which jokes of the training split a fine-tune reads."""

from __future__ import annotations

from typing import NamedTuple

from joker.comedy.moderation import Moderator
from joker.core.joke import Joke
from joker.data.prepared import PreparedData
from joker.training.config import TrainingConfig


class Selection(NamedTuple):
    """What a fine-tune reads.

    Attributes:
        jokes: The jokes.
        flagged: How many the moderation list took out.
        near: How many more it took out for a word that it is wary of.
    """

    jokes: list[Joke]
    flagged: int
    near: int


def select_jokes(data: PreparedData, config: TrainingConfig) -> Selection:
    """Return the training jokes that ``safe``, ``wary`` and ``distinct`` leave."""
    every = unflagged = data.jokes("train")
    moderator = Moderator.default()
    if config.safe:
        unflagged = [one for one in every if not moderator.check(_text(one.joke))]
    kept = unflagged
    if config.wary:
        kept = [one for one in unflagged if not moderator.is_near(_text(one.joke))]
    flagged, near = len(every) - len(unflagged), len(unflagged) - len(kept)
    if config.distinct:
        firsts = {one.cluster: one for one in reversed(kept)}
        kept = [one for one in kept if one is firsts[one.cluster]]
    return Selection([one.joke for one in kept], flagged, near)


def _text(joke: Joke) -> str:
    return f"{joke.question}\n{joke.answer}"
