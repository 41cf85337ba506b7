import json

import pytest
from pydantic import ValidationError
from pydantic_core import to_json

from joker.core.joke import GeneratedJoke
from joker.core.sampling import Sampling
from joker.generation.request import GenerationRequest
from joker.jobs.job import EVENT, JOB, Event, Job, JokeEvent, PartialEvent, State, StateEvent

REQUEST = GenerationRequest(
    "Why",
    2,
    Sampling(1.5, 20, 0.9, 60, ("!", "?")),
    7,
    candidates=4,
    exclude_categories=("racist",),
)
JOKE = GeneratedJoke("Why?", "So.", 7, 1, original=True, similarity=0.25)
JOB_TOLD = Job("job-1", REQUEST, State.SUCCESS, 1.5, 61.5, 1, (JOKE,), request_id="asked")


def test_a_job_comes_back_from_json() -> None:
    assert JOB.validate_json(to_json(JOB_TOLD)) == JOB_TOLD


@pytest.mark.parametrize(
    "event",
    [StateEvent(JOB_TOLD, "1"), PartialEvent(0, "Why", "", "2-0"), JokeEvent(1, JOKE, "3")],
)
def test_an_event_comes_back_from_json(event: Event) -> None:
    assert EVENT.validate_json(to_json(event)) == event


def test_a_job_of_a_server_that_knew_less_or_more_is_read() -> None:
    fields = json.loads(to_json(JOB_TOLD))
    del fields["request"]["sampling"]["stop"]
    fields["request"]["colour"] = fields["jokes"][0]["colour"] = "red"
    job = JOB.validate_python(fields, extra="ignore")
    assert job.request.sampling == Sampling(1.5, 20, 0.9, 60)
    assert job.jokes == (JOKE,)


def test_an_event_of_no_kind_is_refused() -> None:
    with pytest.raises(ValidationError):
        EVENT.validate_python({"name": "rumour", "id": "1"})
