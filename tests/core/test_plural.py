from __future__ import annotations

import pytest

from joker.core.plural import plural


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "jokes"), (1, "joke"), (1.0, "joke"), (1.5, "jokes"), (2, "jokes")]
)
def test_a_noun_is_singular_only_behind_one(count: float, shown: str) -> None:
    assert plural(count, "joke") == shown


def test_a_plural_of_its_own_is_taken() -> None:
    assert [plural(count, "it was", "they were") for count in (1, 2)] == ["it was", "they were"]
