"""Schemas of OpenAI's API: completions, chats, chunks of their streams, and models.

Bodies derive from `joker.generation.request.GenerationRequest`, like those of the other routes. A
choice's text is the whole joke with the prompt, the question on one line and the answer on another.
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

from joker.core.joke import MAX_STOPS, GeneratedJoke, Sampling, StopText
from joker.generation.request import GenerationRequest
from joker.settings import Settings
from joker.web.schemas import flat_request, require_unicode

MODEL = "joker"

FinishReason = Literal["stop", "length"]

_Text = Annotated[str, AfterValidator(require_unicode)]
_Stops = Annotated[list[StopText], Field(max_length=MAX_STOPS)]
_Prompts = Annotated[list[_Text], Field(min_length=1)]


def _as_list(value: Any) -> Any:
    """Return a list as it is, and a string as a list of one."""
    if isinstance(value, str):
        return [value]
    if value is None or isinstance(value, list):
        return value
    raise ValueError("send a string or a list")


def _as_stops(value: Any) -> Any:
    return None if value in ("", []) else _as_list(value)


def _as_parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else _as_list(value)


class _Unsupported:
    """Annotates an unsupported parameter, for which only values without effect are valid."""

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
            "description": "Not supported; only values without effect are accepted.",
            "enum": self._values,
        }

    def _check(self, value: Any) -> Any:
        # In Python, 0 is False, but not in JSON.
        if (value, isinstance(value, bool)) not in [(v, isinstance(v, bool)) for v in self._values]:
            raise ValueError("not supported; leave it out")
        return value


class StreamOptions(BaseModel):
    """OpenAI's options of a stream."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    include_usage: bool | None = Field(
        default=None, description="End the stream with a chunk that counts the tokens."
    )
    include_obfuscation: Annotated[Any, _Unsupported(False)] = None
    continuous_usage_stats: Annotated[Any, _Unsupported(False)] = None


_Parameters: Any = flat_request({"count": "n"}, without={"prompt", "max_new_tokens"}, nullable=True)


class OpenAIBody(_Parameters):  # type: ignore[misc]
    """Parameters of completions and chats, with additional ones such as `safe`."""

    model: str = Field(default=MODEL, description=f"`{MODEL}` is the only one.")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="A joke with more tokens is truncated, and its `finish_reason` is `length`.",
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
    presence_penalty: Annotated[Any, _Unsupported(0)] = None
    frequency_penalty: Annotated[Any, _Unsupported(0)] = None
    logprobs: Annotated[Any, _Unsupported(False)] = None
    top_logprobs: Annotated[Any, _Unsupported(0)] = None
    logit_bias: Annotated[Any, _Unsupported({})] = None
    echo: Annotated[Any, _Unsupported(False)] = None
    suffix: Annotated[Any, _Unsupported("")] = None
    response_format: Annotated[Any, _Unsupported({"type": "text"})] = None
    tools: Annotated[Any, _Unsupported([])] = None
    tool_choice: Annotated[Any, _Unsupported("none", "auto")] = None
    parallel_tool_calls: Annotated[Any, _Unsupported(True)] = None
    functions: Annotated[Any, _Unsupported([])] = None
    function_call: Annotated[Any, _Unsupported("none", "auto")] = None
    store: Annotated[Any, _Unsupported(False)] = None
    metadata: Annotated[Any, _Unsupported({})] = None
    service_tier: Annotated[Any, _Unsupported("auto", "default")] = None
    reasoning_effort: Annotated[Any, _Unsupported()] = None
    verbosity: Annotated[Any, _Unsupported("medium")] = None
    modalities: Annotated[Any, _Unsupported(["text"])] = None
    audio: Annotated[Any, _Unsupported()] = None
    prediction: Annotated[Any, _Unsupported()] = None
    web_search_options: Annotated[Any, _Unsupported()] = None

    @model_validator(mode="after")
    def _reject_options_without_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' needs 'stream': true")
        return self

    @property
    def token_limit(self) -> int | None:
        """Number of tokens after which a joke is truncated."""
        return self.max_tokens

    def to_request(self, settings: Settings, key: str | None = None) -> GenerationRequest:
        """Return the request, in which ``max_tokens`` can only raise the default limit.

        Only whole jokes pass the checks, so jokes are generated whole and truncated afterwards.
        """
        joke_request: GenerationRequest = super().to_request(settings, key)
        sampling = joke_request.sampling
        limit = min(max(sampling.max_new_tokens, self.token_limit or 0), settings.max_new_tokens)
        return replace(joke_request, sampling=replace(sampling, max_new_tokens=limit))

    def to_requests(self, settings: Settings) -> list[GenerationRequest]:
        """Return a request for each prompt."""
        return [self.to_request(settings)]

    def cut(self, joke: GeneratedJoke) -> tuple[str, FinishReason]:
        """Return a joke's text up to the first stop text or the token limit, and which it was.

        The engine applies stop texts to answers only, but for OpenAI's clients the question is part
        of the text. This process has no tokenizer, so all tokens count as equally long.
        """
        whole = str(joke)
        text = Sampling(stop=tuple(self.stop or ())).cut(whole)
        limit = self.token_limit
        if limit is None or joke.tokens <= limit:
            return text, "stop"
        length = len(whole) * limit // joke.tokens
        return text[:length], "length" if length < len(text) else "stop"


class CompletionBody(OpenAIBody):
    """A completion request of OpenAI's API, with additional parameters such as `safe`."""

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
        description="Number of candidates for all `n` jokes together.",
    )

    @model_validator(mode="after")
    def _check_best_of(self) -> Self:
        if self.best_of is not None and self.candidates is not None:
            raise ValueError("'best_of' and 'candidates' cannot be combined")
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise ValueError("'best_of' must be at least 'n'")
        return self

    def values(self) -> dict[str, Any]:
        """Return the parameters that the client sent; ``best_of`` becomes ``candidates``."""
        values: dict[str, Any] = super().values()
        if self.best_of is not None:
            values["candidates"] = self.best_of // (self.n or 1)
        return values

    def to_requests(self, settings: Settings) -> list[GenerationRequest]:
        """Return a request for each prompt."""
        prompts = self.prompt or [""]
        # Each has its own seed unless the client sends one.
        return [
            self.model_copy(update={"prompt": prompt}).to_request(settings) for prompt in prompts
        ]


class TextPart(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: _Text


class Message(BaseModel):
    """A message of a chat; unknown fields are ignored."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[
        list[TextPart] | None,
        BeforeValidator(_as_parts, json_schema_input_type=str | list[TextPart] | None),
    ] = None

    @property
    def text(self) -> str:
        """The text of all parts."""
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
        default=None, ge=1, description="Takes precedence over its older name `max_tokens`."
    )

    def values(self) -> dict[str, Any]:
        """Return the parameters that the client sent, and the last user message as prompt."""
        values: dict[str, Any] = super().values()
        texts = [message.text for message in self.messages if message.role == "user"]
        values["prompt"] = texts[-1].strip() if texts else ""
        return values

    @property
    def token_limit(self) -> int | None:
        """Number of tokens after which a joke is truncated."""
        return self.max_completion_tokens or self.max_tokens


class _Choice(BaseModel):
    index: int
    finish_reason: FinishReason
    logprobs: None = None


class Choice(_Choice):
    """One joke."""

    text: str = Field(examples=["Why did the kettle blush?\nIt saw the teapot's bare spout."])


class AssistantMessage(BaseModel):
    """A joke as a message of the model."""

    role: Literal["assistant"] = "assistant"
    content: str = Field(examples=["Why did the kettle blush?\nIt saw the teapot's bare spout."])
    refusal: None = None


class ChatChoice(_Choice):
    """One joke of a chat."""

    message: AssistantMessage


class ChunkChoice(_Choice):
    """One joke of a streamed chat."""

    delta: AssistantMessage


class Usage(BaseModel):
    """Token counts; candidates that were not told do not count."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(
        cls, jokes_by_prompt: Collection[Sequence[GeneratedJoke]], token_limit: int | None
    ) -> Self:
        """Count the tokens of each prompt and of its jokes, each of which may be truncated."""
        prompt = sum(jokes[0].prompt_tokens for jokes in jokes_by_prompt)
        completion = sum(
            min(joke.tokens, token_limit or joke.tokens)
            for jokes in jokes_by_prompt
            for joke in jokes
        )
        return cls(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
        )


class ResponseHead(NamedTuple):
    """What all chunks of a response share: the random part of its id, and its Unix time."""

    key: str
    created: int


class OpenAIResponse(BaseModel):
    """Jokes as a response of OpenAI's API.

    Attributes:
        id_prefix: Prefix of its ids.
        text_path: Nested keys of a choice's text.
    """

    id_prefix: ClassVar[str]
    text_path: ClassVar[tuple[str, ...]]

    id: str
    created: int
    model: str = MODEL
    usage: Usage | None = None

    @classmethod
    def of(
        cls,
        head: ResponseHead,
        body: OpenAIBody,
        jokes: Mapping[int, GeneratedJoke],
        usage: Usage | None = None,
    ) -> Self:
        """Return a response with jokes by their index, which may be some of those of a body."""
        choices = []
        for index, joke in jokes.items():
            text, reason = body.cut(joke)
            choice = {"index": index, "finish_reason": reason, **_nest(cls.text_path, text)}
            choices.append(choice)
        return cls.model_validate(
            {
                "id": f"{cls.id_prefix}-{head.key}",
                "created": head.created,
                "choices": choices,
                "usage": usage,
            }
        )


class CompletionResponse(OpenAIResponse):
    """Jokes as a completion, or one chunk of a stream of them."""

    id_prefix = "cmpl"
    text_path = ("text",)
    object: Literal["text_completion"] = "text_completion"
    choices: list[Choice]


class ChatResponse(OpenAIResponse):
    """Jokes as messages of a chat."""

    id_prefix = "chatcmpl"
    text_path = ("message", "content")
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class ChatChunk(OpenAIResponse):
    """One chunk of a streamed chat."""

    id_prefix = "chatcmpl"
    text_path = ("delta", "content")
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]


def _nest(keys: Sequence[str], text: str) -> dict[str, Any]:
    """Return a text in nested mappings with these keys."""
    first, *rest = keys
    return {first: _nest(rest, text) if rest else text}


class Model(BaseModel):
    """The model."""

    id: str = MODEL
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = MODEL


class Models(BaseModel):
    """The list of models."""

    object: Literal["list"] = "list"
    data: list[Model]
