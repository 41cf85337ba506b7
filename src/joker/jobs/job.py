"""A job, its states and its events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from joker.core.joke import GeneratedJoke
from joker.generation.request import GenerationRequest


class State(StrEnum):
    """The state of a job; the last three are final."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"

    @property
    def final(self) -> bool:
        """Whether the job will not change any more."""
        return self in (State.SUCCESS, State.FAILURE, State.REVOKED)


@dataclass(frozen=True, slots=True)
class Job:
    """A job at one moment.

    Attributes:
        id: Unguessable id.
        request: The request.
        state: Its state.
        created_at: When it was submitted, in seconds since 1970.
        deadline_at: When it fails if it is not final by then.
        attempts: How many times a worker started it.
        jokes: The jokes told so far; all of them once the state is SUCCESS.
        error: Why it failed, in one sentence.
        refused: Whether the request is why: no acceptable joke was found for it, so another prompt
            may help and a retry will not.
        request_id: Id of the request that submitted it, for logs.
        trace: The W3C ``traceparent`` of that request, if it is traced.
    """

    id: str
    request: GenerationRequest
    state: State
    created_at: float
    deadline_at: float
    attempts: int = 0
    jokes: tuple[GeneratedJoke, ...] = ()
    error: str | None = None
    request_id: str | None = None
    trace: str | None = None
    refused: bool = False

    def moved(self, state: State, **changes: Any) -> Job:
        """Return the job in another state."""
        return replace(self, state=state, **changes)


@dataclass(frozen=True, slots=True)
class StateEvent:
    """A job changed its state.

    Attributes:
        job: The job at that time.
        id: Position of the event; a stream can be resumed after it.
        name: Kind of event.
    """

    job: Job
    id: str = ""
    name: Literal["state"] = "state"


@dataclass(frozen=True, slots=True)
class PartialEvent:
    """The text of a joke so far, by the joke's place in the job."""

    index: int
    question: str
    answer: str
    id: str = ""
    name: Literal["partial"] = "partial"


@dataclass(frozen=True, slots=True)
class JokeEvent:
    """One of a job's jokes was told, by the joke's place in the job."""

    index: int
    joke: GeneratedJoke
    id: str = ""
    name: Literal["joke"] = "joke"


Event = StateEvent | PartialEvent | JokeEvent
"""Something that happened to a job."""
