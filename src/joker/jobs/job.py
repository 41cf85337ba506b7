"""A job: what was asked for, how far it is, what came of it. Plain values that JSON keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from joker.core.sampling import Sampling
from joker.generation.moderation import Category


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
class JokeRequest:
    """What somebody asked for.

    Attributes:
        prompt: The start of a question, a whole one, or nothing.
        count: How many jokes.
        sampling: How tokens are drawn.
        seed: Decides all jokes.
        safe: Withhold jokes that moderation flags as offensive.
        candidates: Candidates of each joke, of which the best is told.
        deadline_seconds: When the job fails that has not been told, counted from when it is taken
            in; None leaves it to the queue, whose own deadline none exceeds.
        exclude_categories: Also withhold jokes with a flag of these, in `CATEGORIES`' order.
    """

    prompt: str
    count: int
    sampling: Sampling
    seed: int
    safe: bool
    candidates: int
    deadline_seconds: float | None = None
    exclude_categories: tuple[Category, ...] = ()

    def deadline_within(self, most_seconds: float) -> float:
        """Return the seconds until the job's deadline in a queue that grants so many at most."""
        return min(self.deadline_seconds or most_seconds, most_seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> JokeRequest:
        """Read what `to_dict` gave."""
        sampling = dict(fields["sampling"])
        sampling["stop"] = tuple(sampling.get("stop", ()))
        read = {
            "sampling": Sampling(**sampling),
            "exclude_categories": tuple(fields["exclude_categories"]),
        }
        return cls(**(fields | read))


@dataclass(frozen=True, slots=True)
class JokeResult:
    """One joke told.

    Attributes:
        question: Its question.
        answer: Its answer.
        seed: Tells it again with the same prompt and sampling.
        tries: How many times the engine was asked for it.
        original: Whether it is no near-duplicate of a training joke; None where that is not known.
        similarity: To the most similar training joke, from 0 to 1; None where it is not known.
        prompt_tokens: Tokens that the model was given; None where nobody counted.
        tokens: Tokens of the joke behind those, its end included; None where nobody counted.
    """

    question: str
    answer: str
    seed: int
    tries: int
    original: bool | None = None
    similarity: float | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None


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
    request: JokeRequest
    state: State
    created_at: float
    deadline_at: float
    attempts: int = 0
    jokes: tuple[JokeResult, ...] = ()
    error: str | None = None
    request_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Job:
        """Read what `to_dict` gave."""
        return cls(
            **{
                **fields,
                "request": JokeRequest.from_dict(fields["request"]),
                "state": State(fields["state"]),
                "jokes": tuple(JokeResult(**joke) for joke in fields["jokes"]),
            }
        )

    def moved(self, state: State, **changes: Any) -> Job:
        """Return the job in another state."""
        return replace(self, state=state, **changes)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job, in the order it happened.

    Attributes:
        id: Grows with every event of a job, as text; a stream can be resumed behind it.
        name: ``state``, ``partial`` (text of a joke so far) or ``joke`` (one joke told).
        data: For ``state`` the job as `Job.to_dict`; for ``partial`` ``index``, ``question`` and
            ``answer`` so far; for ``joke`` ``index`` and a `JokeResult`'s fields.
    """

    id: str
    name: str
    data: dict[str, Any] = field(default_factory=dict)
