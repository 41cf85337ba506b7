import random

import numpy as np
import pytest
from numpy.typing import NDArray

from joker.core.joke import Joke
from joker.core.similarity import (
    SPLIT_JACCARD,
    ShingleSets,
    mix,
    normalize,
)
from joker.data import near_duplicates
from joker.data.near_duplicates import MIN_ANSWER_WORDS, NearDuplicates, find_near_duplicates
from tests.core.reference import jaccard

WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("na", "rik", "lo", "sem")]


def varied_jokes(count: int, seed: int) -> list[Joke]:
    """Return jokes of random words, about half of them variants of earlier ones."""
    rng = random.Random(seed)
    texts: list[list[str]] = []
    for _ in range(count):
        words = (
            list(rng.choice(texts)) if texts and rng.random() < 0.5 else rng.choices(WORDS, k=14)
        )
        for _ in range(rng.randrange(6)):
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        texts.append(words)
    return [Joke(" ".join(words[:8]) + "?", " ".join(words[8:])) for words in texts]


def exhaustive_pairs(jokes: list[Joke]) -> set[tuple[int, int]]:
    """Return all near-duplicates by comparing every two jokes."""
    texts = [normalize(f"{joke.question} {joke.answer}") for joke in jokes]
    answers = [normalize(joke.answer) for joke in jokes]
    return {
        (i, j)
        for j in range(len(jokes))
        for i in range(j)
        if jaccard(texts[i], texts[j]) >= SPLIT_JACCARD
        or (answers[i] == answers[j] and len(answers[i].split()) >= MIN_ANSWER_WORDS)
    }


def edges(copies: NearDuplicates) -> set[tuple[int, int]]:
    """Return which jokes are copies of which, asked one by one."""
    count = len(copies.clusters)
    return {
        (i, j)
        for j in range(count)
        for i in np.flatnonzero(copies.near_duplicate_in(np.arange(count) == j)).tolist()
        if i < j
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_nearly_all_near_copies_are_found_and_no_others(seed: int) -> None:
    jokes = varied_jokes(400, seed)
    wanted, found = exhaustive_pairs(jokes), edges(find_near_duplicates(jokes))
    assert found <= wanted
    assert len(found) >= 0.97 * len(wanted) > 100


def test_clusters_are_the_components_of_the_edges() -> None:
    copies = find_near_duplicates(varied_jokes(300, 3))
    component = list(range(300))
    for left, right in edges(copies):
        old, new = component[right], component[left]
        component = [new if label == old else label for label in component]
    together = copies.clusters[:, None] == copies.clusters[None, :]
    labels = np.array(component)
    assert np.array_equal(together, labels[:, None] == labels[None, :])


def test_equal_jokes_and_equal_long_answers_are_copies() -> None:
    jokes = [
        Joke("Why do owls hum?", "They lost the words."),
        Joke("WHY do owls hum", "they lost the words!"),
        Joke("What happened to that choir of radiators?", "They lost the words."),
        Joke("Who reads all night?", "An owl."),
        Joke("Which bird never sleeps in?", "An owl."),
    ]
    copies = find_near_duplicates(jokes)
    assert copies.clusters.tolist() == [0, 0, 0, 1, 2]
    first = np.arange(len(jokes)) == 0
    assert copies.exact_copy_in(first).tolist() == [True, True, False, False, False]
    assert copies.near_duplicate_in(first).tolist() == [True, True, True, False, False]


def test_texts_without_words_are_copies_of_one_another_only() -> None:
    jokes = [Joke("🦉?", "🦉"), Joke("?!", "…"), Joke("Why do owls hum?", "No words.")]
    assert find_near_duplicates(jokes).clusters.tolist() == [0, 0, 1]


def test_no_jokes_have_no_copies() -> None:
    assert find_near_duplicates([]).clusters.tolist() == []


def test_a_crowded_bucket_is_linked_without_comparing_all(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    candidates = near_duplicates._candidates

    def count(sets: ShingleSets) -> NDArray[np.uint64]:
        found = candidates(sets)
        compared.append(len(found))
        return found

    monkeypatch.setattr(near_duplicates, "_candidates", count)
    question = "Why did the extremely punctual librarian whisper to the grandfather clock at noon?"
    jokes = [Joke(question, f"It was time {number}.") for number in range(2_000)]
    assert set(find_near_duplicates(jokes).clusters.tolist()) == {0}
    assert compared[0] < 100 * len(jokes)


def test_clusters_are_the_same_on_every_machine() -> None:
    clusters = find_near_duplicates(varied_jokes(60, 5)).clusters.tolist()
    assert clusters == find_near_duplicates(varied_jokes(60, 5)).clusters.tolist()
    keys = near_duplicates._band_keys(
        mix(ShingleSets.of(["why do owls hum"]).codes),
        np.array([0]),
        np.array([3, 5], np.uint32),
        np.array([7, 9], np.uint32),
    )
    assert keys.tolist() == [14451527285821546241]
