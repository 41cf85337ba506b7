"""Ranking: of several jokes take the one that works best.

A model with a critic is asked how likely it is that a joke works. Without one, the joke whose
answer fits its question best is taken, by log p(answer | question) − log p(answer): how much
likelier the question makes it. The teller calls this; drawing candidates and checking them are
left to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from joker.core.joke import Joke
from joker.engines.base import Engine


def pick_best(engine: Engine, groups: Iterable[Sequence[Joke]]) -> list[Joke]:
    """Return from each group the joke that the model rates best, the first one among equals.

    All groups are scored in one batch, each different joke once; a group without
    a choice needs no scoring.

    Args:
        engine: The model whose probabilities decide.
        groups: At least one joke each.

    Raises:
        ResourceError: If memory runs out.
    """
    choices = [list(dict.fromkeys(group)) for group in groups]
    scored = list({joke: None for group in choices if len(group) > 1 for joke in group})
    rating = dict(zip(scored, rate(engine, scored), strict=True))
    return [max(group, key=rating.__getitem__) if len(group) > 1 else group[0] for group in choices]


def rate(engine: Engine, jokes: Sequence[Joke]) -> list[float]:
    """Return how well a model thinks of jokes; higher is better.

    With a critic it is log p(the joke works), else `fits`. A joke that the model has no room for
    has minus infinity.
    """
    if not engine.tokenizer.has_critic:
        return fits(engine, jokes)
    return engine.score([engine.tokenizer.encode_verdict(joke, works=True) for joke in jokes])


def fits(engine: Engine, jokes: Sequence[Joke]) -> list[float]:
    """Return log p(answer | question) − log p(answer) of every joke, in nats.

    The end of the joke counts as a part of the answer. Without a question means behind the
    answer marker alone. A joke that the model has no room for has minus infinity.

    It is not divided by the answer's length, though it grows with it: ranked answers are longer.
    Divided by the number of tokens it hardly found better answers than the first drawn, and
    more common and copied ones (docs/experiments-log.md, 2026-11-22, "Ranking candidates").

    Source: the anti-language-model criterion of Li et al., NAACL 2016, "A Diversity-Promoting
    Objective Function for Neural Conversation Models", with a weight of 1.
    """
    given = [engine.tokenizer.encode(joke) for joke in jokes]
    alone = [engine.tokenizer.encode_answer_alone(joke) for joke in jokes]
    scores = engine.score([*given, *alone])
    pairs = zip(scores[: len(jokes)], scores[len(jokes) :], strict=True)
    return [joint - prior if joint > -math.inf else joint for joint, prior in pairs]
