"""Requests and responses of the API: validated, documented, with examples.

Requests derive from `GenerationRequest` and responses from `GeneratedJoke`, so a field is declared
there and nowhere else. OpenAI's shapes are in `joker.web.openai_schemas`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from joker import store
from joker.core.joke import GeneratedJoke
from joker.core.record import fields_of
from joker.core.sampling import Sampling
from joker.generation.request import Effort, GenerationRequest, candidates_of
from joker.jobs.job import Job, State
from joker.settings import Settings

ErrorKind = Literal["invalid_request_error", "rate_limit_error", "server_error"]

_SCORE = fields_of(GeneratedJoke)["score"].description
_SAMPLING = fields_of(Sampling)
_REQUEST = fields_of(GenerationRequest)
# The operator decides these, or they stand for several parameters.
_NOT_ON_WIRE = {"max_attempts", "sampling"}
# These say which jokes are wanted; the others say how they are to be made.
_WHICH_JOKES = {"prompt", "count", "safe", "exclude_categories"}
# If they are missing, the server chooses.
_OPEN = {"seed", "candidates"}


def require_unicode(text: str) -> str:
    """Return a text that can be encoded.

    Raises:
        ValueError: If it has half a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the text contains a lone surrogate; send valid Unicode") from error
    return text


class FlatRequest(BaseModel):
    """A request's parameters side by side, as clients send them; `flat_request` adds the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    wire_names: ClassVar[dict[str, str]] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_other_type(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a truth value that pydantic would take for a number, and the reverse."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        is_flag = annotation in (bool, bool | None)
        if isinstance(value, bool) and not is_flag and annotation is not Any:
            raise ValueError("must be a number or a string, not true or false")
        if isinstance(value, int | float) and not isinstance(value, bool) and is_flag:
            raise ValueError("must be true or false, not a number")
        return value

    @field_validator("*")
    @classmethod
    def _is_unicode(cls, value: Any) -> Any:
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str):
                require_unicode(text)
        return value

    def to_request(self, settings: Settings, key: str | None = None) -> GenerationRequest:
        """Return the request; what is missing is the server's choice.

        Args:
            settings: Defaults that the operator chose.
            key: The same key and parameters again give the same request: a missing seed is made
                from it.

        Raises:
            InputError: If parameters contradict each other.
        """
        fields: dict[str, Any] = {
            "candidates": settings.candidates,
            "max_attempts": settings.max_attempts,
        }
        if key is not None:
            digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
            fields["seed"] = int.from_bytes(digest, "big")
        fields |= self.values()
        sampling = Sampling(**{name: fields.pop(name) for name in _SAMPLING if name in fields})
        return GenerationRequest(sampling=sampling, **fields)

    def values(self) -> dict[str, Any]:
        """Return what was given, by the names of our own request; null gives nothing."""
        given = {
            name: getattr(self, wire)
            for name, wire in self.wire_names.items()
            if wire in self.model_fields_set
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def is_plain(self) -> bool:
        """Whether nothing says how jokes are to be made."""
        return self.values().keys() <= _WHICH_JOKES


def flat_request(
    names: Mapping[str, str], *, without: Collection[str] = (), nullable: bool = False
) -> type[FlatRequest]:
    """Return a model with a field for each parameter of a request.

    Args:
        names: The parameters' names that differ from their fields'.
        without: Fields that are left out.
        nullable: Whether null stands for the default in every field.
    """
    fields: dict[str, Any] = {}
    wire_names: dict[str, str] = {}
    for name, declared in (_REQUEST | _SAMPLING).items():
        if name in _NOT_ON_WIRE or name in without:
            continue
        info = copy(declared)
        annotation: Any = info.annotation
        if nullable or name in _OPEN:
            annotation, info.default, info.default_factory = annotation | None, None, None
        wire_names[name] = names.get(name, name)
        fields[wire_names[name]] = (annotation, info)
    model = create_model("FlatRequest", __base__=FlatRequest, **fields)
    model.wire_names = wire_names
    return model


def _describe_parameters(schema: dict[str, Any]) -> None:
    prompt = schema["properties"]["prompt"]
    description = "Another name for `prompt`."
    schema["properties"]["textprompt"] = {**prompt, "description": description}
    schema["not"] = {"required": ["prompt", "textprompt"]}
    schema["examples"] = [{"textprompt": "Why do cats"}, {"prompt": "Why did the cat", "n": 3}]


_JokeParameters: Any = flat_request({"count": "n"})


class JokeParameters(_JokeParameters):  # type: ignore[misc]
    """Parameters of a request: the query of `GET /joke`, the body of `POST /generate`."""

    model_config = ConfigDict(json_schema_extra=_describe_parameters)

    effort: Effort | None = None

    def values(self) -> dict[str, Any]:
        """Return what was given, by the names of our own request."""
        found: dict[str, Any] = super().values()
        if self.effort is not None:
            found["candidates"] = candidates_of(self.effort)
        return found

    @model_validator(mode="after")
    def _one_number_of_candidates(self) -> Self:
        if self.effort is not None and self.candidates is not None:
            raise ValueError("'effort' sets 'candidates'; send only one of them")
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_name_only(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "textprompt" not in given:
            return given
        if "prompt" in given:
            raise ValueError("'prompt' and 'textprompt' are the same parameter; send only one")
        return {("prompt" if name == "textprompt" else name): given[name] for name in given}


_FLAGS = "Moderation categories that it is flagged for, offensive or not."
_SAFE = "False if moderation flags it as offensive."
_MODEL = "The model that told it."
_LINK = "A path to share; it shows this joke until the store deletes it or somebody reports it."
_PICKED = "True if readers found that this joke works, and picked it for the model's pool."


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedJoke(GeneratedJoke):
    """One joke that was told."""

    id: str | None = Field(
        description="The joke's id at `/jokes/{id}`; null while jokes cannot be stored."
    )
    link: str | None = Field(description=_LINK)
    model: str = Field(description=_MODEL)
    picked: bool = Field(default=False, description=_PICKED)
    flags: tuple[str, ...] = Field(description=_FLAGS, examples=[["political"]])
    safe: bool = Field(description=_SAFE)

    @classmethod
    def of(
        cls,
        joke: GeneratedJoke,
        joke_id: str | None,
        flags: Collection[str],
        *,
        safe: bool,
    ) -> Self:
        """Return a joke that bears its model, with its id in the store and moderation's labels."""
        link = joke_id and link_to(joke_id)
        return cls(**asdict(joke), id=joke_id, link=link, flags=tuple(flags), safe=safe)

    @classmethod
    def of_pool(cls, joke: store.StoredJoke) -> Self:
        """Return a joke of the pool."""
        return cls(
            **asdict(joke.to_generated()),
            id=joke.id,
            link=link_to(joke.id),
            picked=joke.picked,
            flags=joke.categories,
            safe=joke.safe,
        )


def link_to(joke_id: str) -> str:
    """Return the path of a stored joke."""
    return f"/jokes/{joke_id}"


class Task(BaseModel):
    """A job as a client sees it."""

    task_id: str | None = Field(
        description="The job's id at `/generate/{task_id}`; null if the pool had all jokes ready."
    )
    state: State = Field(description="SUCCESS, FAILURE and REVOKED are final.")
    result: list[LinkedJoke] = Field(description="The jokes told so far; all of them once SUCCESS.")
    error: str | None = Field(description="Why the job failed, in one sentence.")
    refused: bool = Field(
        default=False,
        description="Whether it failed because no acceptable joke was found for this request: "
        "another prompt may help, a retry will not.",
    )
    seed: int | None = Field(
        description="With the same request, gives the job's jokes again; null without a job."
    )

    @classmethod
    def of_pool(cls, jokes: list[LinkedJoke]) -> Self:
        """Return jokes for which no job was needed."""
        return cls(task_id=None, state=State.SUCCESS, result=jokes, error=None, seed=None)

    @classmethod
    def of(cls, job: Job, jokes: list[LinkedJoke]) -> Self:
        """Describe a job, with its jokes linked."""
        return cls(
            task_id=job.id,
            state=job.state,
            result=jokes,
            error=job.error,
            refused=job.refused,
            seed=job.request.seed,
        )


class PublishedJoke(BaseModel):
    """A stored joke, without its prompt."""

    id: str
    link: str = Field(description=_LINK)
    question: str = Field(examples=["Why did the kettle blush?"])
    answer: str = Field(examples=["It saw the teapot's bare spout."])
    model: str = Field(description=_MODEL)
    original: bool | None = Field(
        description="False for a near-duplicate of a training joke; null if unknown."
    )
    score: float | None = Field(description=_SCORE)
    picked: bool = Field(description=_PICKED)
    flags: tuple[str, ...] = Field(description=_FLAGS)
    safe: bool = Field(description=_SAFE)
    created_at: datetime = Field(description="When it was told.")
    votes: store.Votes = Field(description="Clients that like it, do not, or reported it.")

    @classmethod
    def of(cls, joke: store.StoredJoke) -> Self:
        """Describe a joke of the store."""
        return cls(
            id=joke.id,
            link=link_to(joke.id),
            question=joke.question,
            answer=joke.answer,
            model=joke.model,
            original=joke.details.get("original"),
            score=joke.details.get("score"),
            picked=joke.picked,
            flags=joke.categories,
            safe=joke.safe,
            created_at=datetime.fromtimestamp(joke.created_at, UTC),
            votes=joke.votes,
        )


class PublishedJokes(BaseModel):
    """Jokes of the store, the best first."""

    jokes: list[PublishedJoke]


class WrongParameter(BaseModel):
    """An invalid parameter, and what is wrong with it."""

    parameter: str = Field(examples=["n"])
    location: str = Field(examples=["body"])
    detail: str = Field(examples=["Input should be greater than or equal to 1"])


REFUSED_TYPE = "/problems/refused"
"""The type of the problem that no acceptable joke was found; a path that explains it."""


class Problem(BaseModel):
    """An error as in RFC 9457 (`application/problem+json`)."""

    type: str = Field(
        default="about:blank",
        description="`about:blank`: the status is the type. Others are paths that explain them.",
    )
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["n: Input should be greater than or equal to 1"])
    instance: str = Field(description="The requested path.", examples=["/generate"])
    request_id: str = Field(description="The request's id in the server's log.")
    errors: list[WrongParameter] | None = Field(
        default=None, description="Each parameter that cannot be used."
    )


class ErrorDetail(BaseModel):
    """What is wrong, in the format of OpenAI's API."""

    message: str = Field(examples=["n: Input should be greater than or equal to 1"])
    type: ErrorKind = "server_error"
    param: str | None = Field(default=None, examples=["n"])
    code: str | None = Field(default=None, examples=["invalid_api_key"])


class JokeApiError(BaseModel):
    """An error in the format of JokeAPI."""

    error: Literal[True] = True
    internalError: bool = Field(description="Whether the server is at fault.")  # noqa: N815
    code: int = Field(examples=[106])
    message: str = Field(examples=["No matching joke found"])
    causedBy: list[str] = Field(examples=[["amount: Input should be greater than 0"]])  # noqa: N815
    additionalInfo: str = Field(examples=["amount: Input should be greater than 0"])  # noqa: N815
    timestamp: int = Field(description="In milliseconds since 1970.")


class OpenAIError(BaseModel):
    """An error in the format of OpenAI's API."""

    error: ErrorDetail
