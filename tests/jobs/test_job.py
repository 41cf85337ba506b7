from __future__ import annotations

import json

import pytest
from pydantic import ValidationError
from pydantic_core import to_json

from joker.core.joke import GeneratedJoke, Sampling
from joker.generation.request import GenerationRequest
from joker.jobs.broker import parse_record
from joker.jobs.job import Job, JokeEvent, State

REQUEST = GenerationRequest(
    "Why",
    2,
    Sampling(1.5, 20, 0.9, 60, ("!", "?")),
    7,
    candidates=4,
    exclude_categories=("racist",),
)
JOKES = (
    GeneratedJoke("Why?", "So.", 7, 1, original=True, similarity=0.25),
    GeneratedJoke("Why not?", "Thus.", 8, 1),
)
TOLD = Job(
    "job-1",
    REQUEST,
    State.SUCCESS,
    1.5,
    61.5,
    attempts=1,
    told=(JokeEvent(1, JOKES[1]), JokeEvent(0, JOKES[0])),
    request_id="asked",
    ended="STARTED",
)


def test_a_record_comes_back_from_json_and_its_jokes_in_order() -> None:
    assert parse_record(to_json(TOLD).decode()) == TOLD
    assert TOLD.jokes == JOKES


def test_a_record_of_a_worker_that_knew_less_or_more_is_read() -> None:
    fields = json.loads(to_json(TOLD))
    del fields["request"]["sampling"]["stop"]
    fields["request"]["colour"] = fields["told"][0]["joke"]["colour"] = "red"
    job = parse_record(json.dumps(fields))
    assert job.request.sampling == Sampling(1.5, 20, 0.9, 60)
    assert job.jokes == JOKES


def test_an_event_of_no_kind_is_refused() -> None:
    fields = json.loads(to_json(TOLD))
    fields["told"][0]["name"] = "rumour"
    with pytest.raises(ValidationError):
        parse_record(json.dumps(fields))
