"""Estimates with confidence intervals, from resampling the measured jokes.

The same values and seed give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1000
_PERCENTILES = (2.5, 97.5)

Transform = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its standard error and its 95% interval."""

    value: float
    standard_error: float
    low: float
    high: float


def bootstrap_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike | None = None,
    *,
    seed: int,
    transform: Transform = np.asarray,
) -> Estimate:
    """Estimate Σ numerators / Σ denominators, with the percentile bootstrap over jokes.

    Both sums use the same resampled jokes (ratio estimator). Source: Efron and
    Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13.

    Args:
        numerators: One number per joke; at least one joke.
        denominators: One number per joke; by default ones, which makes the ratio a mean.
        seed: Decides the resamples.
        transform: A monotone function to apply to the ratio, such as ``np.exp``.
    """
    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.ones_like(top) if denominators is None else np.asarray(denominators, np.float64)
    pairs = np.stack([top, bottom])
    rng = np.random.default_rng(seed)
    size = len(top)
    sums = np.array([pairs[:, rng.integers(size, size=size)].sum(axis=1) for _ in range(RESAMPLES)])
    values = transform(sums[:, 0] / sums[:, 1])
    low, high = np.percentile(values, _PERCENTILES)
    value = transform(np.asarray(top.sum() / bottom.sum()))
    return Estimate(float(value), float(values.std(ddof=1)), float(low), float(high))


def half_sample(share: Callable[[NDArray[np.intp]], float], count: int, seed: int) -> Estimate:
    """Estimate a share of distinct items, from 0 to 1, for which the bootstrap is biased.

    Halves drawn without replacement vary as much as full samples, but around another mean, so
    their deviations from it are added to the full sample's value. Source: Politis and Romano,
    Annals of Statistics 22 (1994), 2031-2050.

    Args:
        share: Returns the share for the jokes at some indices.
        count: Number of jokes; at least one.
        seed: Decides the halves.
    """
    rng = np.random.default_rng(seed)
    halves = (rng.permutation(count)[: (count + 1) // 2] for _ in range(RESAMPLES))
    values = np.array([share(half) for half in halves])
    value = share(np.arange(count))
    low, high = np.clip(value + np.percentile(values - values.mean(), _PERCENTILES), 0, 1)
    return Estimate(float(value), float(values.std(ddof=1)), float(low), float(high))
