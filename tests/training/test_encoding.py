"""What a fine-tune makes of its jokes: orders, verdicts and what is learnt of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from joker.core.fingerprints import stock_phrases
from joker.core.joke import Joke
from joker.core.template import TEMPLATES, Template
from joker.core.tokenizer import JokeTokenizer
from joker.training.base_model import open_base
from joker.training.encoding import encode_selection
from joker.training.filtering import Selection
from joker.training.packing import IGNORED, pack_jokes

STOCK = [
    Joke("Why did the bicycle lie down?", "It was two tired."),
    Joke("Why did the tandem stay in bed?", "It was two tired"),
    Joke("Why did the scooter fall over?", "it was TWO tired!"),
]
OTHERS = [
    Joke("Why was the broom late?", "It swept in."),
    Joke("Why was the mop late?", "It swept in."),
    Joke("What do you call a punctual owl?", "A night watch."),
]
FLAT = Joke("Why is a table?", "Because of the chairs.")


@pytest.fixture(params=[True, False], ids=["punchline first", "question first"])
def tokenizer(request: pytest.FixtureRequest) -> JokeTokenizer:
    template: Template = replace(TEMPLATES["original"], punchline_first=request.param)
    texts = [joke.question for joke in STOCK]
    return open_base("new:tiny", template, texts, critic=True).joke_tokenizer


def test_a_punchline_of_three_questions_is_a_stock_phrase() -> None:
    assert stock_phrases([*STOCK, *OTHERS]) == {"it was two tired"}
    assert stock_phrases(STOCK[:2]) == set()


def test_one_question_asked_again_makes_no_stock_phrase() -> None:
    again = [Joke(question, "It swept in.") for question in ("Why?", "why", "WHY?!", "What?")]
    assert stock_phrases(again) == set()


def test_every_joke_is_read_and_stock_phrases_are_read_backwards_too(
    tokenizer: JokeTokenizer,
) -> None:
    jokes = [*STOCK, *OTHERS]
    encoded = encode_selection(tokenizer, Selection(jokes, 0, 0, []), seed=1)
    assert encoded[: len(jokes)] == [tokenizer.encode(joke) for joke in jokes]
    backwards = [tokenizer.parse(one.input_ids) for one in encoded[len(jokes) :]]
    assert backwards == (STOCK if tokenizer.template.punchline_first else [])


def test_hints_are_nothing_a_start_or_a_topic_of_the_question_and_are_not_learned() -> None:
    template = replace(TEMPLATES["original"], punchline_first=True)
    jokes = [Joke(f"Why did clown number {n} juggle?", "It was two tired.") for n in range(90)]
    tokenizer = open_base("new:tiny", template, [joke.question for joke in jokes]).joke_tokenizer
    encoded = encode_selection(tokenizer, Selection(jokes, 0, 0, []), seed=1)[len(jokes) :]
    kinds: Counter[str] = Counter()
    for joke, one in zip(jokes, encoded, strict=True):
        head = tokenizer.decode(one.input_ids).partition("<|answer|>")[0]
        hint = head.removeprefix("<|question|>").strip()
        start = tokenizer.encode_prompt(hint)
        assert one.input_ids[: len(start)] == start
        assert one.learnt_from == (len(start) if hint else 1)
        if not hint:
            kinds["nothing"] += 1
        elif joke.question.startswith(f"{hint} "):
            kinds["start"] += 1
        else:
            assert hint in joke.question.lower().split("?")[0].split()
            kinds["topic"] += 1
    assert set(kinds) == {"nothing", "start", "topic"}
    assert min(kinds.values()) > 15
    assert encoded == encode_selection(tokenizer, Selection(jokes, 0, 0, []), seed=1)[90:]
    assert encoded != encode_selection(tokenizer, Selection(jokes, 0, 0, []), seed=2)[90:]


def test_of_a_rated_joke_the_verdict_alone_is_learnt(tokenizer: JokeTokenizer) -> None:
    rated = [(STOCK[0], True), (FLAT, False)]
    encoded = encode_selection(tokenizer, Selection(OTHERS, 0, 0, rated), seed=1)
    assert encoded[len(OTHERS) :] == [tokenizer.encode_verdict(*one) for one in rated]
    rows = pack_jokes(encoded, 256, tokenizer.end_id)
    labels, weights = rows.tensors["labels"], rows.tensors["weights"]
    heavy = (weights > 1) & (labels != IGNORED)
    verdicts = [tokenizer.encode_verdict(*one).input_ids[-1] for one in rated]
    assert sorted(labels[heavy].tolist()) == sorted(verdicts)
    told = int((labels != IGNORED).sum()) - len(rated)
    assert told == sum(len(tokenizer.encode(joke)) - 1 for joke in OTHERS)
