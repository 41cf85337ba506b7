from __future__ import annotations

from pathlib import Path

import numpy as np

from joker.generation.moderation import BUCKETS, Flag, Moderator, OffenseClassifier, features


def dislikes(*words: str) -> OffenseClassifier:
    """Return a classifier that objects to each of some words."""
    weights = np.zeros(BUCKETS, np.int8)
    weights[[features([word], [])[0][0] for word in words]] = 100
    return OffenseClassifier(weights, scale=0.01, threshold=1.0)


OWN = Moderator("[dark topic]\nthunder", classifier=dislikes("parsnip"))


def test_a_topic_is_offensive_where_the_classifier_says_so() -> None:
    assert OWN.check("Thunder, parsnip!") == (Flag("dark", "offensive", "thunder"),)
    assert OWN.check("Thunder, turnip!") == (Flag("dark", "topic", "thunder"),)
    assert OWN.withholds("Thunder, parsnip!")


def test_a_text_without_a_topic_is_left_alone() -> None:
    assert OWN.check("Parsnips? Parsnip!") == ()


def test_rules_are_matched_without_the_classifier() -> None:
    assert OWN.match_rules("Thunder, parsnip") == (Flag("dark", "topic", "thunder"),)


def test_disguised_letters_are_read_as_what_they_look_like() -> None:
    assert OWN.withholds("ｐａｒｓｎｉｐ in the thunder")


def test_no_words_are_never_offensive() -> None:
    generous = OffenseClassifier(np.zeros(BUCKETS, np.int8), scale=1.0, threshold=-1.0)
    assert generous.is_offensive(["tea"], [])
    assert not generous.is_offensive([], [])


def test_a_long_text_is_judged_by_its_beginning() -> None:
    classifier = dislikes("parsnip")
    long = ["tea"] * 1_000
    assert classifier.score([*long, "parsnip"], []) == classifier.score(long, [])


def test_a_classifier_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = dislikes("parsnip")
    written.save(tmp_path / "offense.npz")
    read = OffenseClassifier.load(tmp_path / "offense.npz")
    assert np.array_equal(read.weights, written.weights)
    assert (read.scale, read.threshold) == (written.scale, written.threshold)


def test_the_shipped_classifier_is_small_and_fits_the_code() -> None:
    file = Path(__file__).parents[2] / "src/joker/generation/offense.npz"
    assert file.stat().st_size < 300_000
    assert OffenseClassifier.bundled().weights.shape == (BUCKETS,)
