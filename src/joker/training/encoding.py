"""What a fine-tune reads, as token ids: jokes in one order or both, with hints, and verdicts."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable

from joker.core.fingerprints import stock_phrases
from joker.core.similarity import normalise
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.training.filtering import Selection

_WORD = re.compile(r"[^\W\d_]{3,}")
_TOPICS = 2
"""How many of a question's rarest words can be its topic."""


def encode_selection(
    tokenizer: JokeTokenizer, selection: Selection, seed: int
) -> list[EncodedJoke]:
    """Return every joke, in both orders where the template knows both, and verdicts.

    Only jokes that readers liked and those that share their punchline with others are read from
    the punchline on. Of these a third begins with the start of the question and a third with a
    topic, as prompts do.

    Args:
        tokenizer: Its template decides whether there is a second order.
        selection: The jokes.
        seed: Decides which jokes get which hint.
    """
    encoded = [tokenizer.encode(joke) for joke in selection.jokes]
    if tokenizer.template.punchline_first:
        stock = stock_phrases(selection.jokes)
        liked = {joke for joke, works in selection.rated if works}
        chosen = [
            joke for joke in selection.jokes if joke in liked or normalise(joke.answer) in stock
        ]
        hints = _hints([joke.question for joke in chosen], random.Random(seed))
        encoded += map(tokenizer.encode_punchline_first, chosen, hints)
    return encoded + [tokenizer.encode_verdict(joke, works) for joke, works in selection.rated]


def _hints(questions: list[str], generator: random.Random) -> Iterable[str]:
    """Return nothing, a start or a topic for each question."""
    counts = Counter(word.lower() for question in questions for word in _WORD.findall(question))
    for question in questions:
        kind = generator.randrange(3)
        words = question.split()
        if kind == 1 and len(words) > 1:
            yield " ".join(words[: generator.randrange(1, len(words))])
        elif kind == 2 and (topics := _WORD.findall(question.lower())):
            yield generator.choice(sorted(topics, key=counts.__getitem__)[:_TOPICS])
        else:
            yield ""
