import json

from joker.core.sampling import Sampling
from joker.jobs.job import JokeRequest

REQUEST = JokeRequest(
    "Why",
    2,
    Sampling(1.5, 20, 0.9, 60, ("!", "?")),
    7,
    safe=True,
    candidates=4,
    exclude_categories=("racist",),
)


def test_a_request_comes_back_from_json() -> None:
    assert JokeRequest.from_dict(json.loads(json.dumps(REQUEST.to_dict()))) == REQUEST


def test_a_request_of_a_server_that_knew_no_stops_has_none() -> None:
    fields = REQUEST.to_dict()
    del fields["sampling"]["stop"]
    assert JokeRequest.from_dict(fields).sampling == Sampling(1.5, 20, 0.9, 60)
