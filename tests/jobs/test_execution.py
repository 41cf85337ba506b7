from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from joker.core.errors import ConfigError, GenerationError, PromptError, QueueDownError
from joker.core.joke import GeneratedJoke
from joker.engines.protocol import AbandonedError, GenerationListener
from joker.generation.request import GenerationRequest
from joker.jobs.execution import run_attempt
from joker.jobs.job import Job, State
from joker.jobs.queue import Work

if TYPE_CHECKING:
    from tests.jobs.conftest import MakeRequest

LOGGER = "joker.jobs.execution"


class Leaving(GenerationListener):
    """Says that nobody waits any more, or that somebody does."""

    def __init__(self, stopped: bool) -> None:
        self._stopped = stopped

    def should_stop(self) -> bool:
        return self._stopped


def _raise(error: Exception) -> Work:
    def work(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        raise error

    return work


def _tell(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
    return [GeneratedJoke("What is logged?", "This.", 7, 1)]


@pytest.mark.parametrize(
    ("work", "stopped", "state", "outcome"),
    [
        (_tell, False, State.SUCCESS, "told"),
        (_tell, True, State.SUCCESS, "cancelled"),
        (_raise(AbandonedError()), True, State.REVOKED, "cancelled"),
        (_raise(GenerationError("no joke")), False, State.FAILURE, "refused"),
        (_raise(PromptError("the prompt is too long")), False, State.FAILURE, "refused"),
        (_raise(RuntimeError("broken")), False, State.PENDING, "fault"),
        (_raise(QueueDownError("away")), False, None, "lost"),
    ],
)
def test_an_attempt_is_one_line_that_names_the_request(
    work: Work,
    stopped: bool,
    state: State | None,
    outcome: str,
    make_request: MakeRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = make_request("a private prompt")
    job = Job("job-1", request, State.STARTED, 0, 60, attempts=2, request_id="request-1")
    with caplog.at_level(logging.INFO, LOGGER):
        if state is None:
            with pytest.raises(QueueDownError):
                run_attempt(job, work, Leaving(stopped))
        else:
            done = run_attempt(job, work, Leaving(stopped))
            assert (done.state, done.refused) == (state, outcome == "refused")
    (line,) = [record for record in caplog.records if record.message == "attempt"]
    fields = line.__dict__["fields"]
    assert fields.pop("seconds") >= 0
    assert fields == {
        "request_id": "request-1",
        "task_id": "job-1",
        "attempt": 2,
        "outcome": outcome,
    }
    assert "private" not in caplog.text


def test_a_wrong_setting_is_not_the_requests_fault(make_request: MakeRequest) -> None:
    job = Job("job-1", make_request("cats"), State.STARTED, 0, 60, attempts=1)
    done = run_attempt(job, _raise(ConfigError("the API key is refused")), Leaving(False))
    assert (done.state, done.refused) == (State.FAILURE, False)
