from __future__ import annotations

import math

import pytest

from joker.comedy.ranking import fits, pick_best
from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.engines import Engine, open_engine


@pytest.fixture(scope="module")
def engine(tiny_folder: ModelFolder) -> Engine:
    return open_engine(tiny_folder, "transformers")


def test_the_fit_is_what_the_question_adds_to_an_answers_log_probability(
    engine: Engine, sample_jokes: list[Joke]
) -> None:
    encode = engine.tokenizer.encode, engine.tokenizer.encode_answer_alone
    given, alone = (engine.score(list(map(one, sample_jokes))) for one in encode)
    expected = [joint - prior for joint, prior in zip(given, alone, strict=True)]
    assert fits(engine, sample_jokes) == pytest.approx(expected, abs=1e-4)


def test_the_best_fit_of_every_group_is_picked(engine: Engine, sample_jokes: list[Joke]) -> None:
    answers = [joke.answer for joke in sample_jokes[:10]]
    groups = [[Joke(joke.question, answer) for answer in answers] for joke in sample_jokes[:5]]
    picked = pick_best(engine, groups)
    assert len(set(picked)) == 5
    for best, group in zip(picked, groups, strict=True):
        assert fits(engine, [best])[0] == pytest.approx(max(fits(engine, group)), abs=1e-4)


def test_a_joke_without_rivals_is_picked(engine: Engine, sample_jokes: list[Joke]) -> None:
    lone, rival = Joke("Why?", "Because."), Joke(sample_jokes[0].question, "Because.")
    assert pick_best(engine, [[lone], [rival, sample_jokes[0]]]) == [lone, sample_jokes[0]]
    assert pick_best(engine, []) == []


def test_a_joke_that_the_model_has_no_room_for_is_picked_last(
    engine: Engine, sample_jokes: list[Joke]
) -> None:
    endless = Joke(sample_jokes[0].question, "and so on " * 100 + "for ever")
    strange = Joke(sample_jokes[0].question, sample_jokes[1].answer)
    assert fits(engine, [endless]) == [-math.inf]
    assert pick_best(engine, [[endless, strange]]) == [strange]
