import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joker.core.similarity import ShingleSets, normalize, sorted_distinct
from tests.core.reference import five_grams, jaccard

NORMALISED = st.text("abc 12", max_size=30).map(normalize)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Why did the Owl  fail?", "why did the owl fail"),
        ("Ｆｕｌｌ ｗｉｄｔｈ ½", "full width 1 2"),
        ("It's 10%-ish...", "it s 10 ish"),
        ("¿?!", ""),
    ],
)
def test_normalize_keeps_only_words(text: str, expected: str) -> None:
    assert normalize(text) == expected


@given(st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


def test_shingles_have_the_same_codes_on_every_machine() -> None:
    assert ShingleSets.of(["abc"]).codes.tolist() == [((12 * 38 + 13) * 38 + 14) * 38**2]
    assert ShingleSets.of(["aaaaaa"]).codes.tolist() == [12 * (38**5 - 1) // 37]
    assert ShingleSets.of([""]).codes.tolist() == []


@given(NORMALISED)
def test_there_is_one_shingle_for_every_distinct_five_gram(text: str) -> None:
    codes = ShingleSets.of([text]).codes
    assert len(codes) == len(five_grams(text))
    assert np.array_equal(codes, np.unique(codes))


@given(st.lists(NORMALISED, min_size=1, max_size=8), st.integers(0, 8))
def test_many_texts_have_the_shingles_of_each(texts: list[str], cut: int) -> None:
    sets = ShingleSets.join([ShingleSets.of(texts[:cut]), ShingleSets.of(texts[cut:])])
    assert len(sets.starts) == len(texts) + 1
    for index, text in enumerate(texts):
        own = sets.codes[sets.starts[index] : sets.starts[index + 1]]
        assert np.array_equal(own, ShingleSets.of([text]).codes)


@given(st.lists(NORMALISED, min_size=1, max_size=6))
def test_many_pairs_have_the_jaccard_similarity_of_their_five_grams(texts: list[str]) -> None:
    left, right = np.divmod(np.arange(len(texts) ** 2), len(texts))
    measured = ShingleSets.of(texts).jaccard(left, right)
    assert measured.tolist() == [
        jaccard(texts[i], texts[j]) for i, j in zip(left, right, strict=True)
    ]


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_sorted_distinct_values_are_sorted_and_distinct(values: list[int]) -> None:
    assert sorted_distinct(np.array(values, np.uint64)).tolist() == sorted(set(values))
