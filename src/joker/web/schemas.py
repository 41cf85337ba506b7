"""Schemas of the API's requests and responses.

Requests derive from `GenerationRequest` and responses from `GeneratedJoke`, so a field is declared
there and nowhere else. `joker.web.openai_schemas` has those of OpenAI's API.
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
from joker.core.joke import GeneratedJoke, Sampling
from joker.core.record import fields_of
from joker.generation.request import Effort, GenerationRequest, candidates_of
from joker.jobs.job import Job, State
from joker.settings import Settings

ErrorKind = Literal["invalid_request_error", "rate_limit_error", "server_error"]

_SAMPLING = fields_of(Sampling)
_REQUEST = fields_of(GenerationRequest)
# The operator sets `max_attempts`; the fields of `sampling` are parameters themselves.
_NOT_PARAMETERS = {"max_attempts", "sampling"}
# Parameters that a joke of the pool can satisfy; the others say how to generate one.
_POOL_PARAMETERS = {"prompt", "count", "safe", "exclude_categories"}
# The server chooses these if they are missing.
_SERVER_DEFAULTS = {"seed", "candidates"}


def require_unicode(text: str) -> str:
    """Return a text that can be encoded; raise a `ValueError` if it has half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the text contains a lone surrogate; send valid Unicode") from error
    return text


class FlatRequest(BaseModel):
    """The parameters of a request as one object; `flat_request` adds the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    wire_names: ClassVar[dict[str, str]] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _reject_other_types(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject booleans that pydantic would convert to numbers, and the reverse."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        is_flag = annotation in (bool, bool | None)
        if isinstance(value, bool) and not is_flag and annotation is not Any:
            raise ValueError("must be a number or a string, not true or false")
        if isinstance(value, int | float) and not isinstance(value, bool) and is_flag:
            raise ValueError("must be true or false, not a number")
        return value

    @field_validator("*")
    @classmethod
    def _reject_surrogates(cls, value: Any) -> Any:
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str):
                require_unicode(text)
        return value

    def to_request(self, settings: Settings, key: str | None = None) -> GenerationRequest:
        """Return the request, with the server's defaults for missing parameters.

        Args:
            settings: The server's defaults.
            key: Idempotency key, from which a missing seed is derived, so that the same key and
                parameters always give the same request.

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
        """Return the parameters that the client sent, by their fields' names; null is unset."""
        sent = {
            name: getattr(self, wire)
            for name, wire in self.wire_names.items()
            if wire in self.model_fields_set
        }
        return {name: value for name, value in sent.items() if value is not None}

    @property
    def is_plain(self) -> bool:
        """Whether jokes of the pool can satisfy the request."""
        return self.values().keys() <= _POOL_PARAMETERS


def flat_request(
    names: Mapping[str, str], *, without: Collection[str] = (), nullable: bool = False
) -> type[FlatRequest]:
    """Return a model with a field for each parameter of a request.

    Args:
        names: Names of parameters that differ from their fields'.
        without: Fields to leave out.
        nullable: Whether every parameter may be null, which stands for its default.
    """
    fields: dict[str, Any] = {}
    wire_names: dict[str, str] = {}
    for name, declared in (_REQUEST | _SAMPLING).items():
        if name in _NOT_PARAMETERS or name in without:
            continue
        info = copy(declared)
        annotation: Any = info.annotation
        if nullable or name in _SERVER_DEFAULTS:
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
        """Return the parameters that the client sent; ``effort`` becomes ``candidates``."""
        values: dict[str, Any] = super().values()
        if self.effort is not None:
            values["candidates"] = candidates_of(self.effort)
        return values

    @model_validator(mode="after")
    def _reject_effort_with_candidates(self) -> Self:
        if self.effort is not None and self.candidates is not None:
            raise ValueError("'effort' sets 'candidates'; send only one of them")
        return self

    @model_validator(mode="before")
    @classmethod
    def _rename_textprompt(cls, parameters: Any) -> Any:
        if not isinstance(parameters, dict) or "textprompt" not in parameters:
            return parameters
        if "prompt" in parameters:
            raise ValueError("'prompt' and 'textprompt' are the same parameter; send only one")
        return {
            ("prompt" if name == "textprompt" else name): value
            for name, value in parameters.items()
        }


_LINK = "A path to share; it shows this joke until the store deletes it or somebody reports it."


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedJoke(GeneratedJoke):
    """A joke with its link and moderation labels."""

    id: str | None = Field(
        description="The joke's id at `/jokes/{id}`; null while jokes cannot be stored."
    )
    link: str | None = Field(description=_LINK)
    model: str = Field(description="The model that told it.")
    picked: bool = Field(
        default=False,
        description="True if readers found that this joke works, and picked it for the pool.",
    )
    flags: tuple[str, ...] = Field(
        description="Moderation categories that it is flagged for, offensive or not.",
        examples=[["political"]],
    )
    safe: bool = Field(description="False if moderation flags it as offensive.")

    @classmethod
    def of(
        cls,
        joke: GeneratedJoke,
        joke_id: str | None,
        flags: Collection[str],
        *,
        safe: bool,
    ) -> Self:
        """Return a joke, whose model must be set, with its id and labels."""
        link = joke_id and link_to(joke_id)
        return cls(**asdict(joke), id=joke_id, link=link, flags=tuple(flags), safe=safe)

    @classmethod
    def of_stored(cls, joke: store.StoredJoke) -> LinkedJoke:
        """Return a joke of the store."""
        return LinkedJoke(**_stored_fields(joke))


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedJoke(LinkedJoke):
    """A stored joke with its votes."""

    id: str = Field(description="The joke's id at `/jokes/{id}`.")
    link: str = Field(description=_LINK)
    created_at: datetime = Field(description="When it was stored.")
    votes: store.Votes = Field(description="Numbers of clients that like, dislike or reported it.")

    @classmethod
    def of_stored(cls, joke: store.StoredJoke) -> PublishedJoke:
        """Return a joke of the store."""
        created_at = datetime.fromtimestamp(joke.created_at, UTC)
        return PublishedJoke(**_stored_fields(joke), created_at=created_at, votes=joke.votes)


class PublishedJokes(BaseModel):
    """Stored jokes, the best first."""

    jokes: list[PublishedJoke]


def _stored_fields(joke: store.StoredJoke) -> dict[str, Any]:
    return asdict(joke.to_generated()) | {
        "id": joke.id,
        "link": link_to(joke.id),
        "picked": joke.picked,
        "flags": joke.categories,
        "safe": joke.safe,
    }


def link_to(joke_id: str) -> str:
    """Return the path of a stored joke."""
    return f"/jokes/{joke_id}"


class Task(BaseModel):
    """A job and its jokes."""

    task_id: str | None = Field(
        description="The job's id at `/generate/{task_id}`; null if all jokes came from the pool."
    )
    state: State = Field(description="SUCCESS, FAILURE and REVOKED are final.")
    result: list[LinkedJoke] = Field(description="The jokes told so far; all of them once SUCCESS.")
    error: str | None = Field(description="Why the job failed, in one sentence.")
    refused: bool = Field(
        default=False,
        description="True if it failed because no acceptable joke was found for this request: "
        "another prompt may help, a retry will not.",
    )
    seed: int | None = Field(
        description="The same request with this seed gives the same jokes; null without a job."
    )

    @classmethod
    def of_pool(cls, jokes: list[LinkedJoke]) -> Self:
        """Return jokes of the pool, which needed no job."""
        return cls(task_id=None, state=State.SUCCESS, result=jokes, error=None, seed=None)

    @classmethod
    def of(cls, job: Job, jokes: list[LinkedJoke]) -> Self:
        """Return a job with its stored jokes."""
        return cls(
            task_id=job.id,
            state=job.state,
            result=jokes,
            error=job.error,
            refused=job.refused,
            seed=job.request.seed,
        )


class WrongParameter(BaseModel):
    """An invalid parameter, and what is wrong with it."""

    parameter: str = Field(examples=["n"])
    location: str = Field(examples=["body"])
    detail: str = Field(examples=["Input should be greater than or equal to 1"])


REFUSED_TYPE = "/problems/refused"
"""The problem type of a request for which no acceptable joke was found; a path that explains it."""


class Problem(BaseModel):
    """An error as in RFC 9457 (`application/problem+json`)."""

    type: str = Field(
        default="about:blank",
        description="`about:blank` if the status says it all, else a path that explains it.",
    )
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["n: Input should be greater than or equal to 1"])
    instance: str = Field(description="The requested path.", examples=["/generate"])
    request_id: str = Field(description="The request's id in the server's log.")
    errors: list[WrongParameter] | None = Field(default=None, description="The invalid parameters.")


class ErrorDetail(BaseModel):
    """What is wrong, in the format of OpenAI's API."""

    message: str = Field(examples=["n: Input should be greater than or equal to 1"])
    type: ErrorKind = "server_error"
    param: str | None = Field(default=None, examples=["n"])
    code: str | None = Field(default=None, examples=["invalid_api_key"])


class JokeApiError(BaseModel):
    """An error in the format of JokeAPI."""

    error: Literal[True] = True
    internalError: bool = Field(description="True if the server failed.")  # noqa: N815
    code: int = Field(examples=[106])
    message: str = Field(examples=["No matching joke found"])
    causedBy: list[str] = Field(examples=[["amount: Input should be greater than 0"]])  # noqa: N815
    additionalInfo: str = Field(examples=["amount: Input should be greater than 0"])  # noqa: N815
    timestamp: int = Field(description="In milliseconds since 1970.")


class OpenAIError(BaseModel):
    """An error in the format of OpenAI's API."""

    error: ErrorDetail
