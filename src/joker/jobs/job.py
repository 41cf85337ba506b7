"""A job, its states and its events."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from joker.core.joke import GeneratedJoke
from joker.generation.request import GenerationRequest

_EVENT_ID = re.compile("([0-9]{1,18})-([0-9]{1,18})")

Position = tuple[int, int]
"""The position of an event: the attempt, and the event's number within the attempt."""

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
        """Whether the job will not change anymore."""
        return self in (State.SUCCESS, State.FAILURE, State.REVOKED)


@dataclass(frozen=True, slots=True)
class PartialEvent:
    """The text of a joke so far; ``index`` is the joke's place in the job."""

    index: int
    question: str
    answer: str
    id: str = ""
    name: Literal["partial"] = "partial"


@dataclass(frozen=True, slots=True)
class JokeEvent:
    """A joke is finished; ``index`` is its place in the job."""

    index: int
    joke: GeneratedJoke
    id: str = ""
    name: Literal["joke"] = "joke"


@dataclass(frozen=True, slots=True)
class Job:
    """A snapshot of a job; ``records.lua`` writes the same fields as JSON.

    Its events are derived from these fields, so no queue stores them.

    Attributes:
        id: Unguessable id.
        request: The request.
        state: Its state.
        created_at: Unix time at which it was submitted.
        deadline_at: Unix time at which it fails unless it is final.
        attempts: How many times a worker started it.
        told: The jokes of the last attempt, in the order in which they were finished.
        error: Why it failed, in one sentence.
        request_id: Id of the HTTP request that submitted it, for logs.
        trace: The W3C ``traceparent`` of that request, if it is traced.
        refused: Whether it failed because of the request: no acceptable joke was found, so another
            prompt may help but a retry will not.
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
        """The jokes so far, by index; all of them once the state is SUCCESS."""
        return tuple(event.joke for event in sorted(self.told, key=lambda event: event.index))

    @property
    def position(self) -> Position:
        """The position of the last event."""
        if self.state.final:
            return self.attempts + 1, 1
        if self.state is State.PENDING:
            return self.attempts + 1, 0
        return self.attempts, 1 + len(self.told)

    def events(self, after: Position) -> list[Event]:
        """Return the events after a position."""
        pending = replace(self, state=State.PENDING, told=(), error=None, refused=False, ended="")
        started = replace(pending, state=State.STARTED)
        history: list[tuple[Position, Event]] = []
        for attempt in range(1, self.attempts + 1):
            history.append(((attempt, 0), StateEvent(replace(pending, attempts=attempt - 1))))
            history.append(((attempt, 1), StateEvent(replace(started, attempts=attempt))))
        if State.PENDING in (self.state, self.ended):
            history.append(((self.attempts + 1, 0), StateEvent(pending)))
        for number, joke_event in enumerate(self.told, start=2):
            history.append(((self.attempts, number), joke_event))
        if self.state.final:
            history.append((self.position, StateEvent(self)))
        return [
            replace(event, id=format_event_id(position))
            for position, event in history
            if position > after
        ]

    def is_drafting(self, attempt: int, index: int) -> bool:
        """Return whether this is the running attempt and the joke is not finished yet."""
        finished = {event.index for event in self.told}
        return self.state is State.STARTED and self.attempts == attempt and index not in finished


@dataclass(frozen=True, slots=True)
class StateEvent:
    """A job changed its state.

    Attributes:
        job: The job after the change.
        id: The event's position; a stream can be resumed after it.
        name: Kind of event.
    """

    job: Job
    id: str = ""
    name: Literal["state"] = "state"


Event = StateEvent | PartialEvent | JokeEvent
"""Something that happened to a job."""


def format_event_id(position: Position) -> str:
    """Return the id of the event at a position."""
    return f"{position[0]}-{position[1]}"


def parse_event_id(text: str | None) -> Position:
    """Return the position of an event id; the beginning if there is none or it is invalid."""
    match = _EVENT_ID.fullmatch(text) if text else None
    return (int(match[1]), int(match[2])) if match else BEGINNING
