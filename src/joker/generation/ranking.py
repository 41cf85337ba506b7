"""Ranking: of several jokes, the one with the likeliest answer given its question comes first.

A joke that was drafted from its punchline is read the other way round here: how likely is this
answer, given this question? Where the model agrees with itself, readers more often find a point
(docs/experiments-log.md, 2026-11-29). A model with a critic is also asked whether the joke works.
The teller calls this; drawing candidates and checking them are left to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from joker.core.joke import Joke
from joker.engines.protocol import Engine


def rank(engine: Engine, groups: Iterable[Sequence[Joke]]) -> list[dict[Joke, float | None]]:
    """Return the distinct jokes of each group with the model's ratings, the best first.

    All groups are scored in one batch, and equals keep their order. A group of one is not scored:
    its rating is None.

    Raises:
        ResourceError: If memory runs out.
    """
    choices = [list(dict.fromkeys(group)) for group in groups]
    scored = list({joke: None for group in choices if len(group) > 1 for joke in group})
    rating = dict(zip(scored, rate(engine, scored), strict=True))
    return [
        {joke: rating.get(joke) for joke in sorted(group, key=lambda joke: -rating.get(joke, 0.0))}
        for group in choices
    ]


def rate(engine: Engine, jokes: Sequence[Joke]) -> list[float]:
    """Return how well a model thinks of jokes, in nats; higher is better.

    It is the mean log-probability of the answer's tokens, its end included, given the question;
    with a critic, plus the log-probability that the joke works. A joke that the model has no room
    for has minus infinity.
    """
    tokenizer = engine.tokenizer
    encoded = [tokenizer.encode(joke) for joke in jokes]
    verdicts = [0.0] * len(jokes)
    if tokenizer.has_critic:
        verdicts = engine.score([tokenizer.encode_verdict(joke, works=True) for joke in jokes])
    return [
        score / (len(joke) - joke.answer_start) + verdict
        for joke, score, verdict in zip(encoded, engine.score(encoded), verdicts, strict=True)
    ]
