"""A job, its states and its events."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from joker.core.joke import GeneratedJoke
from joker.generation.request import GenerationRequest

_EVENT_ID = re.compile("([0-9]{1,18})-([0-9]{1,18})")

Position = tuple[int, int]
"""The position of an event: the attempt, and the event's number within it."""

BEGINNING: Position = (0, 0)


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


@dataclass(frozen=True, slots=True)
class Job:
    """A job at one moment; also its record in Redis, which ``records.lua`` writes.

    Its events follow from it, so no queue stores them: in each attempt the job waited and was
    started, then its jokes were told, then it ended.

    Attributes:
        id: Unguessable id.
        request: The request.
        state: Its state.
        created_at: When it was submitted, in seconds since 1970.
        deadline_at: When it fails if it is not final by then.
        attempts: How many times a worker started it.
        told: The jokes of the last attempt, in the order they were told.
        error: Why it failed, in one sentence.
        request_id: Id of the request that submitted it, for logs.
        trace: The W3C ``traceparent`` of that request, if it is traced.
        refused: Whether the request is why: no acceptable joke was found for it, so another prompt
            may help and a retry will not.
        ended: The state before the final one; empty until then.
    """

    id: str
    request: GenerationRequest
    state: State
    created_at: float
    deadline_at: float
    attempts: int = 0
    told: tuple[JokeEvent, ...] = ()
    error: str | None = None
    request_id: str | None = None
    trace: str | None = None
    refused: bool = False
    ended: Literal["", "PENDING", "STARTED"] = ""

    @property
    def jokes(self) -> tuple[GeneratedJoke, ...]:
        """The jokes told so far, in order; all of them once the state is SUCCESS."""
        return tuple(event.joke for event in sorted(self.told, key=lambda told: told.index))

    @property
    def position(self) -> Position:
        """The position of the last event."""
        if self.state.final:
            return self.attempts + 1, 1
        if self.state is State.PENDING:
            return self.attempts + 1, 0
        return self.attempts, 1 + len(self.told)

    def moved(self, state: State, **changes: Any) -> Job:
        """Return the job in another state."""
        return replace(self, state=state, **changes)

    def events(self, after: Position) -> list[Event]:
        """Return the events after a position."""
        before = self.moved(State.PENDING, told=(), error=None, refused=False, ended="")
        story: list[tuple[Position, Event]] = []
        for attempt in range(1, self.attempts + 1):
            for step, state in enumerate((State.PENDING, State.STARTED)):
                then = before.moved(state, attempts=attempt - 1 + step)
                story.append(((attempt, step), StateEvent(then)))
        if State.PENDING in (self.state, self.ended):
            story.append(((self.attempts + 1, 0), StateEvent(before)))
        story += (((self.attempts, 2 + number), joke) for number, joke in enumerate(self.told))
        if self.state.final:
            story.append((self.position, StateEvent(self)))
        return [replace(event, id=event_id(at)) for at, event in story if at > after]

    def awaits(self, attempt: int, index: int) -> bool:
        """Return whether an attempt is under way and one of its jokes not told yet."""
        told = {event.index for event in self.told}
        return self.state is State.STARTED and self.attempts == attempt and index not in told


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


Event = StateEvent | PartialEvent | JokeEvent
"""Something that happened to a job."""


def event_id(position: Position) -> str:
    """Return a position as the id of its event."""
    return f"{position[0]}-{position[1]}"


def read_event_id(text: str | None) -> Position:
    """Return the position that an id stands for, or the beginning."""
    match = _EVENT_ID.fullmatch(text) if text else None
    return (int(match[1]), int(match[2])) if match else BEGINNING
