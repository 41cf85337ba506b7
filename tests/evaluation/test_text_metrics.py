from __future__ import annotations

import pytest

from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.core.similarity import normalize
from joker.engines import open_engine
from joker.evaluation.text_metrics import (
    Copy,
    TrainingIndex,
    distinct,
    first_tries,
    frequent_share,
    text_metrics,
)
from tests.core.reference import jaccard

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


def test_offense_is_counted_and_a_mere_topic_is_not() -> None:
    topic = Joke("What did the president tell the senators?", "Nothing new.")
    offense = Joke("Who joked about genocide?", "Nobody laughed.")
    assert text_metrics([*NEW, topic], None, seed=1).flagged.value == 0
    assert text_metrics([*NEW, topic, offense], None, seed=1).flagged.value == pytest.approx(1 / 4)


@pytest.mark.integration
def test_a_trained_model_tells_jokes_at_the_first_try(served_folder: ModelFolder) -> None:
    engine = open_engine(served_folder, reproducible=True)
    tries = first_tries(engine, 12, seed=3)
    assert len(tries) == 12
    assert sum(joke is not None for joke in tries) > 6
    assert len({joke.question for joke in tries if joke}) > 1
    assert tries == first_tries(engine, 12, seed=3)


@pytest.fixture
def index(sample_jokes: list[Joke]) -> TrainingIndex:
    return TrainingIndex(sample_jokes)


def test_the_same_joke_in_other_dress_is_an_exact_copy(index: TrainingIndex) -> None:
    joke = Joke("WHY do pillows never win debates", "They always soften their position")
    assert index.find_copy(joke) == Copy(exact=True, near=True, answer=True)


def test_a_joke_with_a_word_changed_is_a_near_copy(index: TrainingIndex) -> None:
    joke = Joke("Why do pillows never win debates?", "They always soften their stance.")
    assert index.find_copy(joke) == Copy(exact=False, near=True, answer=False)


def test_the_same_answer_to_another_question_is_copied(index: TrainingIndex) -> None:
    joke = Joke("What happens to negotiators in a hot bath?", "They always soften their position!")
    assert index.find_copy(joke) == Copy(exact=False, near=False, answer=True)


def test_the_same_answer_of_two_words_is_no_copy() -> None:
    index = TrainingIndex([Joke("What is behind the old barn door?", "Dry hay.")])
    assert not index.find_copy(Joke("What does a horse order in a restaurant?", "Dry hay."))


def test_a_new_joke_is_no_copy(index: TrainingIndex) -> None:
    assert not index.find_copy(
        Joke("What do robots drink at sea?", "Screwdrivers, slightly salted.")
    )


def test_similarity_is_that_of_the_most_similar_joke(
    index: TrainingIndex, sample_jokes: list[Joke]
) -> None:
    joke = Joke("Why did the umbrella quit the choir?", "It kept folding under one note.")
    texts = [normalize(f"{each.question} {each.answer}") for each in (joke, *sample_jokes)]
    own, *others = texts
    assert index.similarity(joke) == pytest.approx(max(jaccard(own, each) for each in others))


def test_half_of_the_shingles_make_a_near_copy() -> None:
    # 4 shared shingles of 8: "abcdefgh" has abcde, bcdef, cdefg, defgh.
    index = TrainingIndex([Joke("abcdefgh", "!")])
    assert index.similarity(Joke("abcdefghijkl", "!")) == 0.5
    assert index.find_copy(Joke("abcdefghijkl", "!")).near
    assert not index.find_copy(Joke("abcdefghijklm", "!")).near


def test_jokes_without_latin_letters_are_no_copies_of_one_another() -> None:
    index = TrainingIndex([Joke("¿?", "☂")])
    assert not index.find_copy(Joke("¡!", "☀"))


def test_nothing_copies_no_training_jokes(sample_jokes: list[Joke]) -> None:
    assert not TrainingIndex([]).find_copy(sample_jokes[0])


JOKES = [Joke("Who is it?", "It is me."), Joke("Who is it?", "It is you!")]


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        # who is it / it is me, who is it / it is you: 5 different of 12 words,
        (1, 5 / 12),
        # who-is is-it, it-is is-me, it-is is-you: 5 different of 8 pairs, none across,
        (2, 5 / 8),
        # and who-is-it, it-is-me, it-is-you: 3 of 4.
        (3, 3 / 4),
    ],
)
def test_distinct_n_is_different_over_all(n: int, expected: float) -> None:
    assert distinct(JOKES, n, seed=1).value == pytest.approx(expected)


def test_texts_too_short_for_an_ngram_have_none_that_differ() -> None:
    assert distinct([Joke("Why?", "No.")], 3, seed=1).value == 0


def test_texts_that_are_all_different_are_shared_out_by_25() -> None:
    assert frequent_share([f"Answer {n}" for n in range(100)], seed=1).value == 0.25


def test_the_25_most_frequent_count_whatever_their_dress() -> None:
    texts = [f"Answer {n}" for n in range(60)] + ["because", "Because!", "BECAUSE."] * 10
    assert frequent_share(texts, seed=1).value == pytest.approx((30 + 24) / 90)


def test_texts_without_latin_letters_stay_apart() -> None:
    assert frequent_share([chr(0x4E00 + n) for n in range(50)], seed=1).value == 0.5


def test_equal_texts_leave_no_uncertainty() -> None:
    estimate = frequent_share(["same"] * 9, seed=1)
    assert (estimate.low, estimate.value, estimate.high) == (1, 1, 1)
