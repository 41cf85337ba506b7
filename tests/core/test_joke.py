import pytest

from joker.core.joke import Joke


def test_from_text_strips_both_parts() -> None:
    assert Joke.from_text(" Why? \n", "\tBecause.") == Joke("Why?", "Because.")


@pytest.mark.parametrize("parts", [("", "Because."), ("Why?", " \n")])
def test_from_text_of_an_empty_part_is_no_joke(parts: tuple[str, str]) -> None:
    assert Joke.from_text(*parts) is None


@pytest.mark.parametrize("parts", [("", "Because."), ("Why?", " Because.")])
def test_a_joke_refuses_empty_or_unstripped_parts(parts: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="white space"):
        Joke(*parts)


def test_byte_count_is_in_utf8() -> None:
    assert Joke("Où?", "Là.").byte_count == 8
