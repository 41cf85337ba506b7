"""A job's record in Redis, and the events that follow from it.

Events follow from the record, so they are not stored: in each attempt the job waited and was
started, then its jokes were told, then it ended.
"""

from __future__ import annotations

import re
from dataclasses import field, replace
from typing import Literal

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from joker.generation.request import GenerationRequest
from joker.jobs.job import Event, Job, JokeEvent, State, StateEvent
from joker.jobs.queue import LOST, late

_EVENT_ID = re.compile("([0-9]{1,18})-([0-9]{1,18})")

Position = tuple[int, int]
"""The position of an event: the attempt, and the event's number within it."""

BEGINNING: Position = (0, 0)


@dataclass(frozen=True, slots=True)
class Record:
    """A job as Redis keeps it; ``records.lua`` writes it.

    Attributes:
        error: A worker's message, or the code ``late`` or ``lost``.
        ended: The state before the final one; empty until then.
        told: The jokes of the last attempt, in the order they were told.
        refused: Whether the request is why it failed.
    """

    id: str
    request: GenerationRequest
    request_id: str | None
    created_at: float
    deadline_at: float
    state: State
    attempts: int
    error: str | None
    ended: Literal["", "PENDING", "STARTED"] = ""
    told: tuple[JokeEvent, ...] = field(default=())
    trace: str | None = None
    refused: bool = False

    @property
    def job(self) -> Job:
        """The job as it is now."""
        return Job(
            id=self.id,
            request=self.request,
            state=self.state,
            created_at=self.created_at,
            deadline_at=self.deadline_at,
            attempts=self.attempts,
            jokes=tuple(event.joke for event in sorted(self.told, key=lambda told: told.index)),
            error=self._reason(),
            request_id=self.request_id,
            trace=self.trace,
            refused=self.refused,
        )

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
        now = self.job
        before = now.moved(State.PENDING, jokes=(), error=None, refused=False)
        story: list[tuple[Position, Event]] = []
        for attempt in range(1, self.attempts + 1):
            for step, state in enumerate((State.PENDING, State.STARTED)):
                then = before.moved(state, attempts=attempt - 1 + step)
                story.append(((attempt, step), StateEvent(then)))
        if State.PENDING in (self.state, self.ended):
            story.append(((self.attempts + 1, 0), StateEvent(before)))
        story += (((self.attempts, 2 + number), joke) for number, joke in enumerate(self.told))
        if self.state.final:
            story.append((self.position, StateEvent(now)))
        return [replace(event, id=event_id(at)) for at, event in story if at > after]

    def awaits(self, attempt: int, index: int) -> bool:
        """Return whether an attempt is under way and one of its jokes not told yet."""
        told = {event.index for event in self.told}
        return self.state is State.STARTED and self.attempts == attempt and index not in told

    def _reason(self) -> str | None:
        if self.error == "late":
            return late(round(self.deadline_at - self.created_at, 3))
        return LOST if self.error == "lost" else self.error


RECORD: TypeAdapter[Record] = TypeAdapter(Record)


def event_id(position: Position) -> str:
    """Return a position as the id of its event."""
    return f"{position[0]}-{position[1]}"


def read_event_id(text: str | None) -> Position:
    """Return the position that an id stands for, or the beginning."""
    match = _EVENT_ID.fullmatch(text) if text else None
    return (int(match[1]), int(match[2])) if match else BEGINNING
