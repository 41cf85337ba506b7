from __future__ import annotations

from collections.abc import Callable

import pytest

from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.engines import open_engine
from joker.evaluation.originality import TrainingIndex
from joker.evaluation.text_metrics import first_tries, text_metrics

NEW = [
    Joke("What do robots drink at sea?", "Screwdrivers, slightly salted."),
    Joke("Why are maps so calm?", "Their legends are ancient history."),
]


def test_shares_of_copies_are_counted_by_kind(sample_jokes: list[Joke]) -> None:
    same_answer = Joke("What happens in a bath of foam?", "They always soften their position.")
    near = Joke("Why was that staircase so proud?", "It had finally been promoted to escalator.")
    jokes = [sample_jokes[0], near, same_answer, *NEW]
    figures = text_metrics(jokes, TrainingIndex(sample_jokes), seed=1)
    shares = (
        figures.copied,
        figures.copied_exactly,
        figures.copied_nearly,
        figures.copied_answer,
    )
    assert [share.value for share in shares if share] == pytest.approx([3 / 5, 1 / 5, 2 / 5, 3 / 5])


def test_fingerprints_recognise_what_was_trained_on(sample_jokes: list[Joke]) -> None:
    same_answer = Joke("What happens in a bath of foam?", "They always soften their position.")
    jokes = [*sample_jokes[:2], same_answer, NEW[0], NEW[0]]
    figures = text_metrics(jokes, None, Fingerprints.of(sample_jokes), seed=1)
    assert figures.near_duplicate
    assert figures.near_duplicate.value == pytest.approx(3 / 5)
    assert figures.distinct_questions.value == pytest.approx(4 / 5)


def test_copies_are_unknown_without_training_jokes() -> None:
    figures = text_metrics(NEW, None, seed=1)
    assert figures.copied is figures.copied_exactly is figures.copied_nearly is None
    assert figures.copied_answer is figures.near_duplicate is None
    assert figures.jokes == 2


def test_offence_is_counted_and_a_mere_topic_is_not() -> None:
    topic = Joke("What did the president tell the senators?", "Nothing new.")
    offence = Joke("Who joked about genocide?", "Nobody laughed.")
    assert text_metrics([*NEW, topic], None, seed=1).flagged.value == 0
    assert text_metrics([*NEW, topic, offence], None, seed=1).flagged.value == pytest.approx(1 / 4)


def test_a_trained_model_tells_jokes_at_the_first_try(
    require: Callable[[str], None], tiny_folder: ModelFolder
) -> None:
    require("torch")
    engine = open_engine(tiny_folder, "transformers")
    tries = first_tries(engine, 12, seed=3)
    assert len(tries) == 12
    assert sum(joke is not None for joke in tries) > 6
    assert len({joke.question for joke in tries if joke}) > 1
    assert tries == first_tries(engine, 12, seed=3)
