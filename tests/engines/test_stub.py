from __future__ import annotations

from dataclasses import replace

import pytest

from joker.core.joke import Joke
from joker.core.template import TEMPLATES
from joker.engines.engine import BatchedEngine, InThreadRunner
from joker.engines.stub import SCRIPT, StubBatch
from joker.generation.teller import Teller
from tests.generation.stub import StubEngine, ask


def tell(prompt: str, *, punchline_first: bool) -> Joke:
    template = replace(TEMPLATES["original"], punchline_first=punchline_first)
    tokenizer = StubEngine(lambda _: "", template).tokenizer
    engine = BatchedEngine(tokenizer, 1_000, InThreadRunner(StubBatch(tokenizer)))
    (told,) = Teller(engine).tell(ask(prompt, seed=3))
    return told.pair


@pytest.mark.parametrize("punchline_first", [False, True])
def test_jokes_of_the_script_are_told_with_and_without_a_prompt(punchline_first: bool) -> None:
    assert tell("", punchline_first=punchline_first) in SCRIPT
    assert tell("Why do", punchline_first=punchline_first) == SCRIPT[1]
    assert tell(SCRIPT[3].question, punchline_first=punchline_first) == SCRIPT[3]
    answer = tell("Why do cats", punchline_first=punchline_first).answer
    assert answer in {joke.answer for joke in SCRIPT}


def test_a_topic_is_told_of_where_the_punchline_comes_first() -> None:
    assert tell("Tell me a joke about a potato", punchline_first=True) == SCRIPT[3]
    assert tell("elevator", punchline_first=True) == SCRIPT[1]
    assert tell("cats", punchline_first=True).question.startswith("Why did the cat: ")
