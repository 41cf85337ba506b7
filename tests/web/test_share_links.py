from hypothesis import given
from hypothesis import strategies as st

from joker.core.sampling import Sampling
from joker.generation.moderation import CATEGORIES, Category
from joker.jobs.job import JokeRequest
from joker.web.schemas import JokeOptions
from joker.web.share_links import link_to, read_link


@given(
    prompt=st.text(max_size=40),
    seed=st.integers(0, 2**32 - 1),
    rule=st.sampled_from(
        [(True, ()), (False, ()), (True, ("sexist", "racist")), (True, CATEGORIES)]
    ),
    temperature=st.floats(0, 5),
    top_p=st.floats(0.001, 1),
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=4).map(tuple),
)
def test_a_link_holds_all_it_takes(
    prompt: str,
    seed: int,
    rule: tuple[bool, tuple[Category, ...]],
    temperature: float,
    top_p: float,
    stop: tuple[str, ...],
) -> None:
    safe, excluded = rule
    sampling = Sampling(temperature, 20, top_p, 60, stop)
    asked = JokeRequest(prompt, 4, sampling, 1, safe, 3, exclude_categories=excluded)
    link = link_to(asked, seed)
    assert link.startswith("/jokes/")
    options = JokeOptions.model_validate(read_link(link.removeprefix("/jokes/")))
    assert options.to_request(seed=0, candidates=1) == JokeRequest(
        prompt, 1, sampling, seed, safe, 3, exclude_categories=excluded
    )
