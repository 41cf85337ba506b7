import pytest

from joker.core.joke import Joke, punchline_key


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


def test_a_punchline_is_the_same_however_it_is_put() -> None:
    told = ["He was a little rattled.", "Because it was a bit RATTLED!", "it was rattled"]
    assert len({punchline_key(answer) for answer in told}) == 1
    others = ["It saw 2 lamps.", "It saw 3 lamps.", "2 a.m.", "I am.", "I AM. "]
    assert len({punchline_key(answer) for answer in others}) == 4
