"""A job: what was asked for, how far it is, what came of it, and what happened to it."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from joker.core.joke import GeneratedJoke
from joker.generation.request import GenerationRequest


class State(StrEnum):
    """Where a job stands; the last three are final."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self in (State.SUCCESS, State.FAILURE, State.REVOKED)


@dataclass(frozen=True, slots=True)
class Job:
    """A job at one moment.

    Attributes:
        id: Names it; cannot be guessed.
        request: What was asked for.
        state: Where it stands.
        created_at: When it was asked for, in seconds since 1970.
        deadline_at: When it fails if it has not been told.
        attempts: How many times a worker began it.
        jokes: What was told; all of it once the state is SUCCESS.
        error: Why it failed, in one sentence.
        request_id: Names in logs whoever asked for it.
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

    def moved(self, state: State, **changes: Any) -> Job:
        """Return the job in another state."""
        return replace(self, state=state, **changes)


@dataclass(frozen=True, slots=True)
class StateEvent:
    """A job came into another state.

    Attributes:
        job: The job as it then was.
        id: Grows with every event of a job, as text; a stream can be resumed behind it.
        name: What kind of event it is.
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
