import pytest

from joker.core.errors import InputError
from joker.core.joke import Joke, Sampling, punchline_key


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


def test_defaults_are_the_originals() -> None:
    sampling = Sampling()
    assert (sampling.top_k, sampling.top_p, sampling.max_new_tokens) == (50, 0.95, 100)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", 9.0),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", float("nan")),
        ("max_new_tokens", 0),
        ("stop", ("!", "")),
        ("stop", ("a", "b", "c", "d", "e")),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        Sampling(**{field: value})  # type: ignore[arg-type]


def test_an_answer_is_cut_at_whichever_stop_comes_first() -> None:
    sampling = Sampling(stop=("kettle", "tea"))
    assert sampling.cut("More tea for the kettle") == "More "
    assert sampling.cut("More of everything") == "More of everything"
