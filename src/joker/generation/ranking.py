"""Ranking: of several candidates, the one with the likeliest answer given its question comes first.

This also checks jokes that were generated punchline first: where the answer is likely in the other
order too, readers more often find a point (docs/experiments-log.md, 2026-11-29).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean

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

    All groups are scored in one batch, and ties keep their order. A group of one is not scored:
    its rating is None.
    """
    distinct = [list(dict.fromkeys(group)) for group in groups]
    scored = list({joke: None for group in distinct if len(group) > 1 for joke in group})
    rating = dict(zip(scored, rate(engine, scored), strict=True))
    return [
        {joke: rating.get(joke) for joke in sorted(group, key=lambda joke: -rating.get(joke, 0.0))}
        for group in distinct
    ]


def rate(engine: Engine, jokes: Sequence[Joke]) -> list[float]:
    """Return a model's ratings of jokes, in nats; higher is better.

    A rating is the mean log-probability of the answer's tokens and the end token given the
    question, minus the `rating_penalty`; with a critic, plus the log-probability that the joke
    works. A joke longer than the model's context gets minus infinity.
    """
    tokenizer = engine.tokenizer
    encoded = [tokenizer.encode(joke) for joke in jokes]
    if tokenizer.has_critic:  # its verdict is one more token
        encoded = [
            replace(tokenizer.encode_verdict(joke, works=True), answer_start=tokens.answer_start)
            for joke, tokens in zip(jokes, encoded, strict=True)
        ]
    ratings = []
    for joke, scores in zip(jokes, engine.score(encoded), strict=True):
        verdict = scores.pop() if tokenizer.has_critic else 0.0
        ratings.append(fmean(scores) + verdict - rating_penalty(joke))
    return ratings


def rating_penalty(joke: Joke) -> float:
    """Return by how many nats the mean log-probability overrates a joke, according to readers.

    An answer is likely if it echoes its question or the question is long, and its mean is high if
    it is very short.
    """
    question_words, answer_words = (
        set(_CONTENT_WORD.findall(text.lower())) for text in (joke.question, joke.answer)
    )
    return (
        _PER_ECHOED_WORD * len(question_words & answer_words)
        + _PER_LATE_WORD * max(0, len(joke.question.split()) - _EARLY_WORDS)
        + _SHORT_ANSWER * (len(joke.answer.split()) <= _SHORT_WORDS)
    )
