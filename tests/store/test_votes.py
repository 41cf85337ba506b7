import random

import pytest

from joker.store.votes import Votes, liked_interval, score_votes, wilson_lower_bound

LIKED, NOT_LIKED = Votes(up=1), Votes(down=1)


def wilson(up: int, total: int) -> tuple[float, float]:
    return wilson_lower_bound(up, total), 1 - wilson_lower_bound(total - up, total)


@pytest.mark.parametrize(
    ("successes", "trials", "bound"),
    # Reference values by the formula in Brown, Cai and DasGupta (2001), equation 4.
    [(0, 0, 0.0), (0, 10, 0.0), (1, 1, 0.2065), (5, 10, 0.2366), (9, 10, 0.5958), (10, 10, 0.7225)],
)
def test_the_lower_bound_is_wilsons(successes: int, trials: int, bound: float) -> None:
    assert wilson_lower_bound(successes, trials) == pytest.approx(bound, abs=5e-5)


def test_reports_lower_a_rating() -> None:
    assert Votes(up=5, report=2).rating < Votes(up=5).rating


@pytest.mark.parametrize(
    ("up", "down", "score"),
    [
        (0, 0, None),
        (1, 0, None),
        (1, 1, None),
        (2, 0, 2),
        (3, 0, 2),
        (4, 0, 3),
        (8, 1, 3),
        (0, 2, 1),
        (0, 4, 0),
        (50, 49, 2),
    ],
)
def test_the_majority_decides_and_its_certainty_grades(
    up: int, down: int, score: int | None
) -> None:
    assert score_votes(Votes(up, down), min_votes=2) == score


def test_votes_that_agree_on_every_joke_count_once_a_joke() -> None:
    agreed = [Votes(up=9)] * 30 + [Votes(down=9)] * 10
    assert liked_interval(agreed) == pytest.approx(wilson(30, 40), abs=0.01)


def test_a_vote_on_every_joke_gives_wilsons_interval() -> None:
    assert liked_interval([LIKED] * 30 + [NOT_LIKED] * 10) == pytest.approx(
        wilson(30, 40), abs=0.01
    )


def test_voters_who_see_no_difference_between_jokes_count_one_by_one() -> None:
    rng = random.Random(1)
    ups = [sum(rng.random() < 0.6 for _ in range(10)) for _ in range(100)]
    found = liked_interval([Votes(up=up, down=10 - up) for up in ups])
    assert found == pytest.approx(wilson(sum(ups), 1000), abs=0.01)


@pytest.mark.parametrize("jokes", [1, 5])
def test_unanimous_votes_are_as_certain_as_their_jokes_are_many(jokes: int) -> None:
    assert liked_interval([Votes(up=50)] * jokes) == wilson(jokes, jokes)


def test_it_holds_the_share_of_further_jokes_more_often_than_if_votes_were_independent() -> None:
    rng = random.Random(2)
    held = {"resampled": 0, "independent": 0}
    for _ in range(100):
        votes = []
        for _ in range(15):
            likes = rng.choice((0.1, 0.7))
            up = sum(rng.random() < likes for _ in range(6))
            votes.append(Votes(up=up, down=6 - up))
        intervals = {
            "resampled": liked_interval(votes),
            "independent": wilson(sum(each.up for each in votes), 6 * 15),
        }
        for name, (low, high) in intervals.items():
            held[name] += low <= 0.4 <= high
    assert held["resampled"] >= 90
    assert held["independent"] < 80
