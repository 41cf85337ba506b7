from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra 'train' is not installed")

from joker.core.sampling import Sampling  # noqa: E402
from joker.engines.sampler import draw  # noqa: E402

PROBABILITIES = torch.tensor([0.1, 0.4, 0.2, 0.3])
GRID = [(i + 0.5) / 1000 for i in range(1000)]


def shares(sampling: Sampling) -> list[float]:
    """Return how often each token is drawn when the uniform numbers cover [0, 1) evenly."""
    logits = PROBABILITIES.log().expand(len(GRID), -1)
    counts = draw(logits, [sampling] * len(GRID), GRID).bincount(minlength=4)
    return (counts / len(GRID)).tolist()


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0, top_k=0, top_p=1.0), [0.1, 0.4, 0.2, 0.3]),
        (Sampling(0.5, top_k=0, top_p=1.0), [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
        (Sampling(1.0, top_k=2, top_p=1.0), [0, 4 / 7, 0, 3 / 7]),
        (Sampling(1.0, top_k=0, top_p=0.65), [0, 4 / 7, 0, 3 / 7]),
        (Sampling(1.0, top_k=0, top_p=0.75), [0, 4 / 9, 2 / 9, 3 / 9]),
        (Sampling(1.0, top_k=2, top_p=0.5), [0, 1, 0, 0]),  # of the two kept, 4/7 reach 0.5
        (Sampling(1.0, top_k=0, top_p=1e-9), [0, 1, 0, 0]),
        (Sampling(1.0, top_k=1, top_p=1.0), [0, 1, 0, 0]),
        (Sampling(0.0, top_k=0, top_p=1.0), [0, 1, 0, 0]),
    ],
)
def test_tokens_are_drawn_by_the_truncated_distribution(
    sampling: Sampling, expected: list[float]
) -> None:
    assert shares(sampling) == pytest.approx(expected, abs=2e-3)


def test_every_row_is_drawn_by_its_own_rules() -> None:
    logits = PROBABILITIES.log().expand(3, -1)
    samplings = [Sampling(0.0), Sampling(1.0, top_k=2, top_p=1.0), Sampling(1.0, 0, 1.0)]
    assert draw(logits, samplings, [0.99] * 3).tolist() == [1, 3, 0]


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_draw_a_kept_token(uniform: float) -> None:
    logits = torch.randn(200, 5000, generator=torch.Generator().manual_seed(0)) * 4
    drawn = draw(logits, [Sampling(1.0, 0, 1.0)] * 200, [uniform] * 200)
    assert ((drawn >= 0) & (drawn < 5000)).all()
