from __future__ import annotations

from pathlib import Path

import numpy as np

from joker.comedy.moderation import CLASSIFIER, Flag, Moderator
from joker.comedy.offence import BUCKETS, OffenceClassifier, features


def dislikes(*words: str) -> OffenceClassifier:
    """Return a classifier that objects to each of some words."""
    weights = np.zeros(BUCKETS, np.int8)
    weights[[features([word], [])[0][0] for word in words]] = 100
    return OffenceClassifier(weights, scale=0.01, threshold=1.0)


def test_an_objectionable_text_is_flagged_without_a_rule() -> None:
    moderator = Moderator("[dark topic]\nthunder", classifier=dislikes("parsnip"))
    assert moderator.check("Parsnips? Parsnip!") == (Flag("other", "offensive", CLASSIFIER),)
    assert moderator.withholds("A parsnip.")
    assert not moderator.withholds("A turnip in the thunder.")


def test_rules_and_classifier_are_told_apart() -> None:
    moderator = Moderator("[dark topic]\nthunder", classifier=dislikes("parsnip"))
    assert moderator.match_rules("Thunder, parsnip") == (Flag("dark", "topic", "thunder"),)
    assert len(moderator.check("Thunder, parsnip")) == 2


def test_disguised_letters_are_read_as_what_they_look_like() -> None:
    moderator = Moderator("", classifier=dislikes("parsnip"))
    assert moderator.withholds("ｐａｒｓｎｉｐ")


def test_no_words_are_never_offensive() -> None:
    generous = OffenceClassifier(np.zeros(BUCKETS, np.int8), scale=1.0, threshold=-1.0)
    assert generous.is_offensive(["tea"], [])
    assert not generous.is_offensive([], [])


def test_a_long_text_is_judged_by_its_beginning() -> None:
    classifier = dislikes("parsnip")
    long = ["tea"] * 1_000
    assert classifier.score([*long, "parsnip"], []) == classifier.score(long, [])


def test_a_classifier_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = dislikes("parsnip")
    written.write(tmp_path / "offence.npz")
    read = OffenceClassifier.read(tmp_path / "offence.npz")
    assert np.array_equal(read.weights, written.weights)
    assert (read.scale, read.threshold) == (written.scale, written.threshold)


def test_the_shipped_classifier_is_small_and_fits_the_code() -> None:
    file = Path(__file__).parents[2] / "src/joker/comedy/offence.npz"
    assert file.stat().st_size < 300_000
    assert OffenceClassifier.bundled().weights.shape == (BUCKETS,)
