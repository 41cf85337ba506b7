from __future__ import annotations

import pytest

from joker.core.joke import Joke
from joker.core.similarity import normalise
from joker.evaluation.originality import Copy, TrainingIndex
from tests.core.reference import jaccard


@pytest.fixture
def index(sample_jokes: list[Joke]) -> TrainingIndex:
    return TrainingIndex(sample_jokes)


def test_the_same_joke_in_other_dress_is_an_exact_copy(index: TrainingIndex) -> None:
    joke = Joke("WHY do pillows never win debates", "They always soften their position")
    assert index.copy(joke) == Copy(exact=True, near=True, answer=True)


def test_a_joke_with_a_word_changed_is_a_near_copy(index: TrainingIndex) -> None:
    joke = Joke("Why do pillows never win debates?", "They always soften their stance.")
    assert index.copy(joke) == Copy(exact=False, near=True, answer=False)


def test_the_same_answer_to_another_question_is_copied(index: TrainingIndex) -> None:
    joke = Joke("What happens to negotiators in a hot bath?", "They always soften their position!")
    assert index.copy(joke) == Copy(exact=False, near=False, answer=True)


def test_the_same_answer_of_two_words_is_no_copy() -> None:
    index = TrainingIndex([Joke("What is behind the old barn door?", "Dry hay.")])
    assert not index.copy(Joke("What does a horse order in a restaurant?", "Dry hay."))


def test_a_new_joke_is_no_copy(index: TrainingIndex) -> None:
    assert not index.copy(Joke("What do robots drink at sea?", "Screwdrivers, slightly salted."))


def test_similarity_is_that_of_the_most_similar_joke(
    index: TrainingIndex, sample_jokes: list[Joke]
) -> None:
    joke = Joke("Why did the umbrella quit the choir?", "It kept folding under one note.")
    texts = [normalise(f"{each.question} {each.answer}") for each in (joke, *sample_jokes)]
    own, *others = texts
    assert index.similarity(joke) == pytest.approx(max(jaccard(own, each) for each in others))


def test_half_of_the_shingles_make_a_near_copy() -> None:
    # 4 shared shingles of 8: "abcdefgh" has abcde, bcdef, cdefg, defgh.
    index = TrainingIndex([Joke("abcdefgh", "!")])
    assert index.similarity(Joke("abcdefghijkl", "!")) == 0.5
    assert index.copy(Joke("abcdefghijkl", "!")).near
    assert not index.copy(Joke("abcdefghijklm", "!")).near


def test_jokes_without_latin_letters_are_no_copies_of_one_another() -> None:
    index = TrainingIndex([Joke("¿?", "☂")])
    assert not index.copy(Joke("¡!", "☀"))


def test_nothing_copies_no_training_jokes(sample_jokes: list[Joke]) -> None:
    assert not TrainingIndex([]).copy(sample_jokes[0])
