from hypothesis import given
from hypothesis import strategies as st

from joker.api.links import link_to, read_link
from joker.api.schemas import JokeOptions
from joker.comedy.moderation import CATEGORIES, Category
from joker.core.sampling import Sampling
from joker.jobs.job import JokeRequest


@given(
    prompt=st.text(max_size=40),
    seed=st.integers(0, 2**32 - 1),
    withheld=st.sampled_from([CATEGORIES, (), ("sexist", "racist")]),
    temperature=st.floats(0, 5),
    top_p=st.floats(0.001, 1),
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=4).map(tuple),
)
def test_a_link_holds_all_it_takes(
    prompt: str,
    seed: int,
    withheld: tuple[Category, ...],
    temperature: float,
    top_p: float,
    stop: tuple[str, ...],
) -> None:
    asked = JokeRequest(prompt, 4, Sampling(temperature, 20, top_p, 60, stop), 1, withheld, 3)
    link = link_to(asked, seed)
    assert link.startswith("/jokes/")
    options = JokeOptions.model_validate(read_link(link.removeprefix("/jokes/")))
    assert options.to_request(seed=0, candidates=1) == JokeRequest(
        prompt, 1, asked.sampling, seed, withheld, 3
    )
