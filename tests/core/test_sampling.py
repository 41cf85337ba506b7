import pytest

from joker.core.errors import InputError
from joker.core.sampling import Sampling


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
