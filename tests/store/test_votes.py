import pytest

from joker.store.feedback import score_votes
from joker.store.votes import Votes, wilson_lower_bound


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
    assert score_votes(Votes(up, down)) == score
