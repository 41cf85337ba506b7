"""OpenAI's shapes: bodies of completions and chats, answers, chunks of streams, models.

Bodies derive from `joker.generation.request.GenerationRequest`, as those of the other routes do.
A choice's text is the whole joke, question and answer on lines of their own, the prompt included.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from joker.core.joke import GeneratedJoke
from joker.core.sampling import MAX_STOPS, Sampling, StopText
from joker.generation.request import GenerationRequest
from joker.settings import Settings
from joker.web.schemas import flat_request, require_unicode

MODEL = "joker"

FinishReason = Literal["stop", "length"]

_Text = Annotated[str, AfterValidator(require_unicode)]
_Stops = Annotated[list[StopText], Field(max_length=MAX_STOPS)]
_Prompts = Annotated[list[_Text], Field(min_length=1)]


def _as_list(value: Any) -> Any:
    """Return a text as a list of one."""
    if isinstance(value, str):
        return [value]
    if value is None or isinstance(value, list):
        return value
    raise ValueError("send a string or a list")


def _as_stops(value: Any) -> Any:
    return None if value in ("", []) else _as_list(value)


def _as_parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else _as_list(value)


class _Neutral:
    """Marks an unsupported parameter: only values that have no effect anyway are accepted."""

    def __init__(self, *values: Any) -> None:
        self._values = [*values, None]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "description": "Has no effect; only neutral values are accepted.",
            "enum": self._values,
        }

    def _check(self, value: Any) -> Any:
        # In Python, 0 is False, but not in JSON.
        if (value, isinstance(value, bool)) not in [(v, isinstance(v, bool)) for v in self._values]:
            raise ValueError("not supported; leave it out")
        return value


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    include_usage: bool | None = Field(
        default=None, description="End the stream with a chunk that counts the tokens."
    )
    include_obfuscation: Annotated[Any, _Neutral(False)] = None
    continuous_usage_stats: Annotated[Any, _Neutral(False)] = None


_Parameters: Any = flat_request({"count": "n"}, without={"prompt", "max_new_tokens"}, nullable=True)


class OpenAIBody(_Parameters):  # type: ignore[misc]
    """Parameters of completions and chats, with some of our own such as `safe`."""

    model: str = Field(default=MODEL, description=f"`{MODEL}`, the only one.")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="A joke with more tokens is cut off, and its `finish_reason` is `length`.",
    )
    stop: Annotated[
        _Stops | None,
        BeforeValidator(_as_stops, json_schema_input_type=StopText | Literal[""] | _Stops | None),
    ] = Field(
        default=None,
        description="The text ends before the first of these, and generation stops.",
    )
    stream: bool | None = Field(default=None, description="Send each joke as soon as it is told.")
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, max_length=256, description="Not used.")
    safety_identifier: str | None = Field(default=None, max_length=256, description="Not used.")
    prompt_cache_key: str | None = Field(default=None, max_length=256, description="Not used.")
    prompt_cache_retention: str | None = Field(
        default=None, max_length=256, description="Not used."
    )
    presence_penalty: Annotated[Any, _Neutral(0)] = None
    frequency_penalty: Annotated[Any, _Neutral(0)] = None
    logprobs: Annotated[Any, _Neutral(False)] = None
    top_logprobs: Annotated[Any, _Neutral(0)] = None
    logit_bias: Annotated[Any, _Neutral({})] = None
    echo: Annotated[Any, _Neutral(False)] = None
    suffix: Annotated[Any, _Neutral("")] = None
    response_format: Annotated[Any, _Neutral({"type": "text"})] = None
    tools: Annotated[Any, _Neutral([])] = None
    tool_choice: Annotated[Any, _Neutral("none", "auto")] = None
    parallel_tool_calls: Annotated[Any, _Neutral(True)] = None
    functions: Annotated[Any, _Neutral([])] = None
    function_call: Annotated[Any, _Neutral("none", "auto")] = None
    store: Annotated[Any, _Neutral(False)] = None
    metadata: Annotated[Any, _Neutral({})] = None
    service_tier: Annotated[Any, _Neutral("auto", "default")] = None
    reasoning_effort: Annotated[Any, _Neutral()] = None
    verbosity: Annotated[Any, _Neutral("medium")] = None
    modalities: Annotated[Any, _Neutral(["text"])] = None
    audio: Annotated[Any, _Neutral()] = None
    prediction: Annotated[Any, _Neutral()] = None
    web_search_options: Annotated[Any, _Neutral()] = None

    @model_validator(mode="after")
    def _streams_with_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' needs 'stream': true")
        return self

    @property
    def most_tokens(self) -> int | None:
        """With how many tokens a joke is cut off."""
        return self.max_tokens

    def to_request(self, settings: Settings, key: str | None = None) -> GenerationRequest:
        """Return the request; a draft may have more tokens than its client wants to read.

        A joke is checked as a whole, and a model with the punchline first writes it from the end.
        """
        asked: GenerationRequest = super().to_request(settings, key)
        usual = asked.sampling.max_new_tokens
        most = min(max(usual, self.most_tokens or 0), settings.max_new_tokens)
        return replace(asked, sampling=replace(asked.sampling, max_new_tokens=most))

    def to_requests(self, settings: Settings) -> list[GenerationRequest]:
        """Return a request for each prompt."""
        return [self.to_request(settings)]

    def cut(self, joke: GeneratedJoke) -> tuple[str, FinishReason]:
        """Return the text of a joke up to the first stop or the last token, and which it was.

        The engine stops in answers only; for OpenAI's clients, the question is text as well. This
        process has no tokenizer, so the tokens of a text count as equally long.
        """
        whole = str(joke)
        text = Sampling(stop=tuple(self.stop or ())).cut(whole)
        most = self.most_tokens
        if most is None or joke.tokens <= most:
            return text, "stop"
        kept = len(whole) * most // joke.tokens
        return text[:kept], "length" if kept < len(text) else "stop"


class CompletionBody(OpenAIBody):
    """A completion request of OpenAI's API, with some parameters of our own such as `safe`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": MODEL, "prompt": "Why do cats", "n": 2}],
            "not": {
                "required": ["best_of", "candidates"],
                "properties": {"best_of": {"type": "integer"}, "candidates": {"type": "integer"}},
            },
        },
    )
    wire_names: ClassVar[dict[str, str]] = {**OpenAIBody.wire_names, "prompt": "prompt"}

    prompt: Annotated[
        _Prompts | None,
        BeforeValidator(_as_list, json_schema_input_type=str | _Prompts | None),
    ] = Field(
        default=None,
        description="The start of a question, a whole question ending in '?', or a topic; "
        "or a list of them, each of which gets `n` jokes.",
    )
    best_of: int | None = Field(
        default=None,
        ge=1,
        description="OpenAI's name for candidates: of this many in all, the best `n` are told.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.best_of is not None and self.candidates is not None:
            raise ValueError("'best_of' and 'candidates' cannot be combined")
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise ValueError("'best_of' must be at least 'n'")
        return self

    def values(self) -> dict[str, Any]:
        """Return what was given, by the names of our own request."""
        values: dict[str, Any] = super().values()
        if self.best_of is not None:
            values["candidates"] = self.best_of // (self.n or 1)
        return values

    def to_requests(self, settings: Settings) -> list[GenerationRequest]:
        """Return a request for each prompt."""
        prompts = self.prompt or [""]
        # Each has a seed of its own unless the client gives one.
        return [self.model_copy(update={"prompt": one}).to_request(settings) for one in prompts]


class TextPart(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: _Text


class Message(BaseModel):
    """One message of a chat; unknown fields are ignored."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[
        list[TextPart] | None,
        BeforeValidator(_as_parts, json_schema_input_type=str | list[TextPart] | None),
    ] = None

    @property
    def text(self) -> str:
        """What it says."""
        return " ".join(part.text for part in self.content or ())


class ChatBody(OpenAIBody):
    """A chat request of OpenAI's API; the last user message is the prompt."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": "Tell me a joke about cats"}],
                }
            ],
        },
    )

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(
        default=None, ge=1, description="The newer name of `max_tokens`; takes precedence."
    )

    def values(self) -> dict[str, Any]:
        """Return what was given, by the names of our own request."""
        values: dict[str, Any] = super().values()
        said = [message.text for message in self.messages if message.role == "user"]
        values["prompt"] = said[-1].strip() if said else ""
        return values

    @property
    def most_tokens(self) -> int | None:
        """With how many tokens a joke is cut off."""
        return self.max_completion_tokens or self.max_tokens


class _Choice(BaseModel):
    index: int
    finish_reason: FinishReason
    logprobs: None = None


class Choice(_Choice):
    """One joke."""

    text: str = Field(examples=["Why did the kettle blush?\nIt saw the teapot's bare spout."])


class Said(BaseModel):
    """A joke as a message of the model."""

    role: Literal["assistant"] = "assistant"
    content: str = Field(examples=["Why did the kettle blush?\nIt saw the teapot's bare spout."])
    refusal: None = None


class ChatChoice(_Choice):
    """One joke of a chat."""

    message: Said


class ChunkChoice(_Choice):
    """One joke of a streamed chat."""

    delta: Said


class Usage(BaseModel):
    """Token counts; candidates that were not told do not count."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, told: Collection[Sequence[GeneratedJoke]], most: int | None) -> Self:
        """Count the tokens of each prompt, and of its jokes, each of which may be cut off."""
        prompts = sum(jokes[0].prompt_tokens for jokes in told)
        drawn = sum(min(joke.tokens, most or joke.tokens) for jokes in told for joke in jokes)
        return cls(prompt_tokens=prompts, completion_tokens=drawn, total_tokens=prompts + drawn)


class Head(NamedTuple):
    """What all chunks of an answer share: its key, of which its id is made, and its time."""

    key: str
    created: int


class OpenAIAnswer(BaseModel):
    """Jokes as a response of OpenAI's API.

    Attributes:
        id_prefix: How its ids begin.
        text_at: The keys that lead to a choice's text.
    """

    id_prefix: ClassVar[str]
    text_at: ClassVar[tuple[str, ...]]

    id: str
    created: int
    model: str = MODEL
    usage: Usage | None = None

    @classmethod
    def of(
        cls,
        head: Head,
        body: OpenAIBody,
        jokes: Mapping[int, GeneratedJoke],
        usage: Usage | None = None,
    ) -> Self:
        """Return some of the jokes that a body asks for, by their index."""
        choices = []
        for index, joke in jokes.items():
            text, reason = body.cut(joke)
            choice = {"index": index, "finish_reason": reason, **_nest(cls.text_at, text)}
            choices.append(choice)
        return cls.model_validate(
            {
                "id": f"{cls.id_prefix}-{head.key}",
                "created": head.created,
                "choices": choices,
                "usage": usage,
            }
        )


class CompletionResponse(OpenAIAnswer):
    """Jokes as a completion, or one chunk of a stream of them."""

    id_prefix = "cmpl"
    text_at = ("text",)
    object: Literal["text_completion"] = "text_completion"
    choices: list[Choice]


class ChatResponse(OpenAIAnswer):
    """Jokes as messages of a chat."""

    id_prefix = "chatcmpl"
    text_at = ("message", "content")
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class ChatChunk(OpenAIAnswer):
    """One chunk of a streamed chat."""

    id_prefix = "chatcmpl"
    text_at = ("delta", "content")
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]


def _nest(keys: Sequence[str], text: str) -> dict[str, Any]:
    """Return nested mappings that lead to a text by these keys."""
    first, *rest = keys
    return {first: _nest(rest, text) if rest else text}


class Model(BaseModel):
    """A model by name."""

    id: str = MODEL
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = MODEL


class Models(BaseModel):
    """The list of models, which has one."""

    object: Literal["list"] = "list"
    data: list[Model]
