from __future__ import annotations

import numpy as np
import pytest

from joker.evaluation.bootstrap import bootstrap_ratio, half_sample


def test_a_ratio_is_of_sums_and_no_mean_of_ratios() -> None:
    assert bootstrap_ratio([1, 9], [1, 3], seed=0).value == 2.5


def test_without_denominators_it_is_a_mean() -> None:
    assert bootstrap_ratio([True, False, False, False], seed=0).value == 0.25


def test_equal_jokes_leave_no_uncertainty() -> None:
    estimate = bootstrap_ratio([6.0] * 50, [3] * 50, seed=0)
    assert (estimate.value, estimate.standard_error) == (2.0, 0.0)
    assert (estimate.low, estimate.high) == (2.0, 2.0)


def test_the_standard_error_of_a_share_is_the_binomial_one() -> None:
    estimate = bootstrap_ratio([1] * 120 + [0] * 280, seed=3)
    expected = (0.3 * 0.7 / 400) ** 0.5
    assert estimate.standard_error == pytest.approx(expected, rel=0.1)
    assert estimate.low == pytest.approx(0.3 - 1.96 * expected, abs=0.01)
    assert estimate.high == pytest.approx(0.3 + 1.96 * expected, abs=0.01)


def test_numerator_and_denominator_are_drawn_together() -> None:
    lengths = np.arange(1, 100)
    assert bootstrap_ratio(2 * lengths, lengths, seed=0).standard_error == pytest.approx(0)


def test_a_transform_applies_to_value_and_interval() -> None:
    plain = bootstrap_ratio([1, 2, 3, 4], seed=7)
    exponential = bootstrap_ratio([1, 2, 3, 4], seed=7, transform=np.exp)
    assert exponential.value == pytest.approx(np.exp(plain.value))
    assert exponential.low == pytest.approx(np.exp(plain.low), rel=0.01)


def test_the_seed_decides() -> None:
    numbers = np.random.default_rng(0).random(30)
    assert bootstrap_ratio(numbers, seed=1) == bootstrap_ratio(numbers, seed=1)
    assert bootstrap_ratio(numbers, seed=1) != bootstrap_ratio(numbers, seed=2)


def test_one_joke_has_an_estimate() -> None:
    assert bootstrap_ratio([3], [2], seed=0).value == 1.5
    assert half_sample(lambda chosen: float(len(chosen)), 1, seed=0).value == 1.0


def test_half_samples_of_a_mean_spread_like_the_mean() -> None:
    marks = np.array([1] * 120 + [0] * 280)
    estimate = half_sample(lambda chosen: float(marks[chosen].mean()), 400, seed=3)
    assert estimate.value == 0.3
    assert estimate.standard_error == pytest.approx((0.3 * 0.7 / 400) ** 0.5, rel=0.1)


def test_half_samples_never_leave_the_range_of_a_share() -> None:
    marks = np.array([1] * 19 + [0])
    estimate = half_sample(lambda chosen: float(marks[chosen].mean()), 20, seed=3)
    assert estimate.low < estimate.value < estimate.high <= 1
