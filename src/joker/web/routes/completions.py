"""``/v1``: what OpenAI clients need to have jokes told.

A choice's text is the whole joke, question and answer on lines of their own, the
prompt included. A stream has one chunk for each joke, because a joke is checked as a
whole before anyone hears it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Literal, Self

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException

from joker.core.errors import QueueError
from joker.jobs.job import Job, State
from joker.jobs.queue import JobQueue
from joker.web.dependencies import TheIntake, TheQueue
from joker.web.errors import BODY_RESPONSES, PROBLEM_RESPONSES, describe_problem, tell_client
from joker.web.schemas import (
    SAMPLING,
    Candidates,
    Count,
    ExcludeCategories,
    JokeOptions,
    NewTokens,
    Prompt,
    Safe,
    Seed,
    Stop,
    StopText,
    Temperature,
    TopK,
    TopP,
)
from joker.web.security import require_key
from joker.web.submission import Intake

MODEL = "joker"

_NOT_FOUND = describe_problem("There is no such model.")
_RESPONSES = {
    **BODY_RESPONSES,
    404: _NOT_FOUND,
    502: describe_problem("The model gave no acceptable joke."),
    504: describe_problem("No joke in time."),
}

router = APIRouter(
    prefix="/v1",
    tags=["OpenAI"],
    dependencies=[Depends(require_key)],
    responses=PROBLEM_RESPONSES,
)


class StreamOptions(BaseModel):
    """What a stream holds beside the jokes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    include_usage: bool = Field(
        default=False, description="End with a chunk that counts the tokens."
    )


class CompletionBody(BaseModel):
    """What is asked for, in OpenAI's words, with some words of our own such as `safe`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [{"model": MODEL, "prompt": "Why do cats", "n": 2}],
            "not": {
                "required": ["best_of", "candidates"],
                "properties": {"best_of": {"type": "integer"}, "candidates": {"type": "integer"}},
            },
        },
    )

    model: str = Field(default=MODEL, description=f"`{MODEL}`, the only one.")
    prompt: Prompt = ""
    max_tokens: NewTokens = SAMPLING.max_new_tokens
    temperature: Temperature = SAMPLING.temperature
    top_p: TopP = SAMPLING.top_p
    top_k: TopK = SAMPLING.top_k
    n: Count = 1
    seed: Seed = None
    safe: Safe = True
    exclude_categories: ExcludeCategories = []
    candidates: Candidates = None
    best_of: int | None = Field(
        default=None,
        ge=1,
        description="OpenAI's way to ask for candidates: of so many in all, the best `n` are told.",
    )
    stop: StopText | Literal[""] | Stop | None = Field(
        default=None,
        description="Where a text ends, itself left out; no more of an answer is drawn.",
    )
    stream: bool = Field(default=False, description="Send each joke as soon as it is told.")
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, max_length=256, description="Not used.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.best_of is not None and self.candidates is not None:
            raise ValueError("'best_of' and 'candidates' are two names of one thing; give one")
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError("'best_of' must be at least 'n'")
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' is for streams; ask for one with 'stream'")
        return self

    @property
    def options(self) -> JokeOptions:
        """The same in our words."""
        return JokeOptions(
            prompt=self.prompt,
            n=self.n,
            safe=self.safe,
            exclude_categories=self.exclude_categories,
            seed=self.seed,
            candidates=self.best_of // self.n if self.best_of else self.candidates,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            max_new_tokens=self.max_tokens,
            stop=self.stops,
        )

    @property
    def stops(self) -> list[str]:
        """The stops as a list; an empty text is none."""
        if isinstance(self.stop, str):
            return [self.stop] if self.stop else []
        return self.stop or []


class Choice(BaseModel):
    """One joke."""

    index: int
    text: str = Field(examples=["Why did the kettle blush?\nIt saw the teapot's bare spout."])
    finish_reason: Literal["stop"] = "stop"
    logprobs: None = None


class Usage(BaseModel):
    """How many tokens jokes took; candidates that were not told do not count."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, job: Job) -> Self | None:
        """Count a job's tokens; None where its workers did not."""
        prompts = [joke.prompt_tokens for joke in job.jokes if joke.prompt_tokens is not None]
        tokens = sum(joke.tokens or 0 for joke in job.jokes)
        if not prompts:
            return None
        # All jokes of a job have one prompt.
        return cls(
            prompt_tokens=prompts[0], completion_tokens=tokens, total_tokens=prompts[0] + tokens
        )


class Completion(BaseModel):
    """Jokes as a completion, or one chunk of a stream of them."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str = MODEL
    choices: list[Choice]
    usage: Usage | None = None


class Model(BaseModel):
    """A model by name."""

    id: str = MODEL
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = MODEL


class Models(BaseModel):
    """All models: one."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.post(
    "/completions",
    summary="Complete a prompt to jokes",
    response_model=Completion,
    responses={**_RESPONSES, 200: {"content": {"text/event-stream": {}}}},
)
async def complete(
    body: CompletionBody, request: Request, intake: TheIntake, queue: TheQueue
) -> Completion | Response:
    """Tell jokes to an OpenAI client, at once or as a stream of server-sent events."""
    _check_model(body.model)
    if body.stream:
        job = await intake.submit(request, body.options)
        events = _stream(queue, intake, job, body)
        return StreamingResponse(events, media_type="text/event-stream")
    job = await intake.tell(request, body.options)
    texts = [f"{joke.question}\n{joke.answer}" for joke in job.jokes]
    return _completion(job, dict(enumerate(texts)), Usage.of(job))


@router.get("/models", summary="List the models")
async def list_models() -> Models:
    """Return the one model there is."""
    return Models(data=[Model()])


@router.get("/models/{model}", summary="Look at a model", responses={404: _NOT_FOUND})
async def read_model(model: str) -> Model:
    """Return the model, if it is the one there is."""
    _check_model(model)
    return Model()


def _check_model(name: str) -> None:
    if name != MODEL:
        raise HTTPException(404, f"there is no model {name!r}; the only one is {MODEL!r}")


def _completion(job: Job, texts: dict[int, str], usage: Usage | None = None) -> Completion:
    # The engine ends answers at a stop; to OpenAI's clients a question is text as well.
    cut = job.request.sampling.cut
    return Completion(
        id=f"cmpl-{job.id}",
        created=int(job.created_at),
        choices=[Choice(index=index, text=cut(text)) for index, text in texts.items()],
        usage=usage,
    )


async def _stream(
    queue: JobQueue, intake: Intake, job: Job, body: CompletionBody
) -> AsyncIterator[bytes]:
    """Yield server-sent events as OpenAI sends them; cancel the job if the client leaves."""
    final = False
    try:
        async for event in queue.events(job.id):
            data = event.data
            if event.name == "joke":
                texts = {data["index"]: f"{data['question']}\n{data['answer']}"}
                yield _event(_completion(job, texts).model_dump())
            elif event.name == "state":
                state = State(data["state"])
                final = state.final
                if final and state is not State.SUCCESS:
                    yield _error(data["error"] or "the joke was cancelled; ask again")
                elif final and body.stream_options and body.stream_options.include_usage:
                    usage = Usage.of(Job.from_dict(data))
                    yield _event(_completion(job, {}, usage).model_dump())
    except QueueError as error:
        yield _error(tell_client(error))
    finally:
        if not final:
            await intake.abandon(job)
    yield format_sse_event(data_str="[DONE]")


def _error(sentence: str) -> bytes:
    return _event({"error": {"message": sentence, "type": "server_error"}})


def _event(fields: dict[str, Any]) -> bytes:
    return format_sse_event(data_str=json.dumps(fields, ensure_ascii=False))
