from __future__ import annotations

import pytest

from joker.core.joke import Joke
from joker.evaluation.diversity import distinct, frequent_share

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
