from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest

from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import FAILS, WORKS, EncodedJoke
from joker.engines import Engine, open_engine
from joker.generation.ranking import rank, rate, rating_penalty
from joker.training.base_model import open_base
from joker.training.export import export_openvino

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine(served_folder: ModelFolder) -> Engine:
    return open_engine(served_folder, reproducible=True)


def test_a_joke_is_rated_by_its_answers_mean_log_probability(
    engine: Engine, sample_jokes: list[Joke]
) -> None:
    encoded = [engine.tokenizer.encode(joke) for joke in sample_jokes]
    expected = [
        fmean(scores) - rating_penalty(joke)
        for joke, scores in zip(sample_jokes, engine.score(encoded), strict=True)
    ]
    assert rate(engine, sample_jokes) == pytest.approx(expected, abs=1e-4)


def test_answers_that_echo_the_question_or_are_very_short_are_overrated() -> None:
    fine = Joke("Why did the chef leave?", "She had too much on her plate.")
    assert rating_penalty(fine) == 0
    echo = Joke("Why did the chef leave the plate?", "She had too much on her plate.")
    assert rating_penalty(echo) == pytest.approx(0.33)
    assert rating_penalty(Joke("Why did the chef leave?", "Too much.")) == pytest.approx(1.46)


def test_contractions_of_function_words_are_no_echo() -> None:
    assert (
        rating_penalty(Joke("Why does she think she's late?", "It's what they're all saying.")) == 0
    )


def test_each_word_beyond_the_ninth_makes_a_question_overrated() -> None:
    nine, eleven = ("Why did the chef leave the party" + " again" * n for n in (2, 4))
    answer = "She had too much on her plate."
    assert rating_penalty(Joke(f"{nine}?", answer)) == 0
    assert rating_penalty(Joke(f"{eleven}?", answer)) == pytest.approx(0.26)


def test_a_learnt_answer_is_rated_above_another_questions(
    engine: Engine, sample_jokes: list[Joke]
) -> None:
    swapped = [
        Joke(one.question, other.answer)
        for one, other in zip(sample_jokes, reversed(sample_jokes), strict=True)
    ]
    pairs = zip(rate(engine, sample_jokes), rate(engine, swapped), strict=True)
    assert all(own > other for own, other in pairs)


def test_the_best_rated_joke_of_every_group_comes_first(
    engine: Engine, sample_jokes: list[Joke]
) -> None:
    answers = [joke.answer for joke in sample_jokes[:10]]
    groups = [[Joke(joke.question, answer) for answer in answers] for joke in sample_jokes[:5]]
    ranked = rank(engine, groups)
    best = [next(iter(group.items())) for group in ranked]
    assert [joke for joke, _ in best] == sample_jokes[:5]
    assert [score for _, score in best] == pytest.approx(rate(engine, sample_jokes[:5]), abs=1e-4)
    assert [set(group) for group in ranked] == [set(group) for group in groups]


def test_a_joke_without_rivals_is_not_scored(engine: Engine, sample_jokes: list[Joke]) -> None:
    lone, rival = Joke("Why?", "Because."), Joke(sample_jokes[0].question, "Because.")
    ranked = rank(engine, [[lone], [rival, sample_jokes[0]]])
    assert ranked[0] == {lone: None}
    assert list(ranked[1]) == [sample_jokes[0], rival]
    assert rank(engine, []) == []


def test_a_joke_that_the_model_has_no_room_for_comes_last(
    engine: Engine, sample_jokes: list[Joke]
) -> None:
    endless = Joke(sample_jokes[0].question, "and so on " * 100 + "for ever")
    strange = Joke(sample_jokes[0].question, sample_jokes[1].answer)
    assert rate(engine, [endless]) == [-math.inf]
    assert list(rank(engine, [[endless, strange]])[0]) == [strange, endless]


def test_a_critics_verdict_counts_and_takes_no_pass_of_its_own(
    tiny_folder: ModelFolder,
    sample_jokes: list[Joke],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = open_base(str(tiny_folder.path), tiny_folder.manifest.template, [], critic=True)
    base.model.save_pretrained(tmp_path / "model")
    base.tokenizer.save_pretrained(tmp_path / "model")
    shutil.copy(tiny_folder.path / "joker.json", tmp_path / "model")
    folder = ModelFolder.open(tmp_path / "model")
    export_openvino(folder)
    critic = open_engine(folder, reproducible=True)
    tokenizer = critic.tokenizer
    assert {WORKS, FAILS} <= tokenizer.backend.get_vocab(with_added_tokens=True).keys()
    joke = sample_jokes[0]
    (verdict,) = critic.score([tokenizer.encode_verdict(joke, works=True)])[0]
    answer = fmean(critic.score([tokenizer.encode(joke)])[0])
    assert verdict < 0
    passes: list[int] = []
    score = critic.score

    def counted(jokes: Sequence[EncodedJoke]) -> list[list[float]]:
        passes.append(len(jokes))
        return score(jokes)

    monkeypatch.setattr(critic, "score", counted)
    assert rate(critic, [joke])[0] == pytest.approx(answer + verdict, abs=1e-4)
    assert passes == [1]
