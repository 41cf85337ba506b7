"""Ranking: of several jokes, the one with the likeliest answer given its question comes first.

A joke that was drafted from its punchline is read the other way round here: how likely is this
answer, given this question? Where the model agrees with itself, readers more often find a point
(docs/experiments-log.md, 2026-11-29). Likelihood overrates some jokes; `overrated` corrects that.
A model with a critic is also asked whether the joke works. The teller calls this; drawing
candidates and checking them are left to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from joker.core.joke import Joke
from joker.engines.protocol import Engine

_CONTENT_WORD = re.compile(
    r"(?<![\w'’])(?!(?:an?|and|had|he|hers?|his|in|is|it|of|she|the|they|to|was)\b)[^\W\d_][\w'’]*"
)
# Logistic regression of readers' verdicts on 1,851 drafts of the bundled model, its weights divided
# by that of the mean log-probability (docs/experiments-log.md, 2026-11-30).
_PER_ECHOED_WORD = 0.33
_PER_LATE_WORD = 0.13
_EARLY_WORDS = 9
_SHORT_ANSWER = 1.46
_SHORT_WORDS = 2


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

    It is the mean log-probability of the answer's tokens, its end included, given the question,
    minus what `overrated` says; with a critic, plus the log-probability that the joke works. A joke
    that the model has no room for has minus infinity.
    """
    tokenizer = engine.tokenizer
    encoded = [tokenizer.encode(joke) for joke in jokes]
    verdicts = [0.0] * len(jokes)
    if tokenizer.has_critic:
        verdicts = engine.score([tokenizer.encode_verdict(joke, works=True) for joke in jokes])
    return [
        score / (len(tokens) - tokens.answer_start) + verdict - overrated(joke)
        for joke, tokens, score, verdict in zip(
            jokes, encoded, engine.score(encoded), verdicts, strict=True
        )
    ]


def overrated(joke: Joke) -> float:
    """Return by how many nats a mean log-probability overrates a joke, according to readers.

    An answer is likely if it echoes its question, and its mean is high if it is very short; a long
    question explains any answer.
    """
    asked, told = (
        set(_CONTENT_WORD.findall(text.lower())) for text in (joke.question, joke.answer)
    )
    return (
        _PER_ECHOED_WORD * len(asked & told)
        + _PER_LATE_WORD * max(0, len(joke.question.split()) - _EARLY_WORDS)
        + _SHORT_ANSWER * (len(joke.answer.split()) <= _SHORT_WORDS)
    )
