import numpy as np
import pytest

from joker.data.split import split_by_cluster, split_by_joke

KEYS = [f"owl {number}" for number in range(1_000)]


def test_a_random_split_tests_a_tenth() -> None:
    assert split_by_joke(KEYS, 1).sum() == 100


def test_a_seed_gives_the_same_split_on_every_machine() -> None:
    chosen = np.flatnonzero(split_by_joke(KEYS[:50], 7)).tolist()
    assert chosen == [0, 8, 19, 20, 41]
    assert not np.array_equal(split_by_joke(KEYS, 7), split_by_joke(KEYS, 8))


@pytest.mark.parametrize("seed", [0, 1, -5])
def test_clusters_stay_together(seed: int) -> None:
    clusters = np.random.default_rng(1).integers(0, 300, len(KEYS))
    test = split_by_cluster(KEYS, clusters, seed, np.ones(len(KEYS), np.bool_))
    assert test.sum() == 100
    for cluster in range(300):
        assert len(set(test[clusters == cluster])) <= 1


def test_a_cluster_too_large_for_the_test_set_trains() -> None:
    clusters = np.array([0] * 500 + list(range(1, 501)))
    test = split_by_cluster(KEYS, clusters, 1, np.ones(len(KEYS), np.bool_))
    assert not test[:500].any()
    assert test.sum() == 100


def test_only_counted_jokes_fill_the_test_set() -> None:
    counted = np.arange(len(KEYS)) % 2 == 0
    test = split_by_cluster(KEYS, np.arange(len(KEYS)) // 2, 1, counted)
    assert (test & counted).sum() == 50
    assert test.sum() == 100


@pytest.mark.parametrize(("count", "tested"), [(2, 1), (5, 1), (14, 1), (16, 2)])
def test_few_jokes_test_at_least_one(count: int, tested: int) -> None:
    assert split_by_joke(KEYS[:count], 1).sum() == tested
