"""``/v1``: jokes for OpenAI clients, as completions and in chats.

Jokes are checked as a whole before they are told. So a stream has one chunk for each joke, and the
client's token limit truncates jokes only after they are generated.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from joker.core.errors import GenerationError, QueueError
from joker.core.joke import GeneratedJoke
from joker.jobs.job import Job, JokeEvent, StateEvent
from joker.web.dependencies import ArchiveDep, QueueDep, SettingsDep, SubmissionDep, require_key
from joker.web.errors import (
    BODY_RESPONSES,
    GENERATION_RESPONSES,
    PROBLEM_RESPONSES,
    REFUSED_CODE,
    UnknownModelError,
    openai_responses,
    problem_response,
    public_message,
)
from joker.web.openai_schemas import (
    MODEL,
    ChatBody,
    ChatChunk,
    ChatResponse,
    CompletionBody,
    CompletionResponse,
    Model,
    Models,
    OpenAIBody,
    OpenAIResponse,
    ResponseHead,
    Usage,
)
from joker.web.schemas import ErrorDetail, OpenAIError
from joker.web.streams import EventStream
from joker.web.submission import JokeBatch, jobs_of, raise_for_state

_NOT_FOUND = openai_responses({404: problem_response("There is no such model.")})
_COMPLETION_RESPONSES: dict[int | str, dict[str, Any]] = {
    **openai_responses(BODY_RESPONSES),
    **_NOT_FOUND,
    **openai_responses(GENERATION_RESPONSES),
    200: {"content": {"text/event-stream": {}}},
}

router = APIRouter(
    prefix="/v1",
    tags=["OpenAI"],
    dependencies=[Depends(require_key)],
    responses=openai_responses(PROBLEM_RESPONSES),
)


class _Responder:
    """Responds to a body with jokes, at once or as a stream of server-sent events."""

    def __init__(
        self,
        request: Request,
        submission: SubmissionDep,
        queue: QueueDep,
        archive: ArchiveDep,
        settings: SettingsDep,
    ) -> None:
        self._request = request
        self._submission = submission
        self._queue = queue
        self._archive = archive
        self._settings = settings
        self._head = ResponseHead(secrets.token_hex(12), int(time.time()))

    async def respond(
        self,
        body: OpenAIBody,
        response_type: type[OpenAIResponse],
        chunk_type: type[OpenAIResponse],
    ) -> OpenAIResponse | Response:
        """Return the jokes as one response, or as a stream of chunks if the body asks for it."""
        _check_model(body.model)
        joke_requests = body.to_requests(self._settings)
        if body.stream:
            batches = await self._submission.start(
                self._request, joke_requests, plain=body.is_plain
            )
            unfinished = jobs_of(batches)
            return EventStream(
                self._stream(body, batches, unfinished, chunk_type),
                lambda: self._submission.abandon(*unfinished),
            )
        batches = await self._submission.tell(self._request, joke_requests, plain=body.is_plain)
        jokes_by_prompt = [batch.jokes for batch in batches]
        jokes = dict(enumerate(chain.from_iterable(jokes_by_prompt)))
        usage = Usage.of(jokes_by_prompt, body.token_limit)
        return response_type.of(self._head, body, jokes, usage)

    async def _stream(
        self,
        body: OpenAIBody,
        batches: Sequence[JokeBatch],
        unfinished: list[Job],
        chunk_type: type[OpenAIResponse],
    ) -> AsyncGenerator[bytes]:
        """Yield server-sent events in OpenAI's format; remove finished jobs from the list."""
        jokes_by_prompt: list[list[GeneratedJoke]] = []
        offset = 0
        try:
            for batch in batches:
                jokes: dict[int, GeneratedJoke] = {}
                async for index, joke in self._jokes_of(batch):
                    jokes[index] = joke
                    yield _event(chunk_type.of(self._head, body, {offset + index: joke}))
                if batch.job:
                    unfinished.remove(batch.job)
                jokes_by_prompt.append(list(jokes.values()))
                offset += len(jokes)
            if body.stream_options and body.stream_options.include_usage:
                usage = Usage.of(jokes_by_prompt, body.token_limit)
                yield _event(chunk_type.of(self._head, body, {}, usage))
        except GenerationError as error:
            yield _error(str(error), type="invalid_request_error", code=REFUSED_CODE)
        except HTTPException as error:
            yield _error(error.detail)
        except QueueError as error:
            yield _error(public_message(error))
        yield format_sse_event(data_str="[DONE]")

    async def _jokes_of(self, batch: JokeBatch) -> AsyncIterator[tuple[int, GeneratedJoke]]:
        """Yield the jokes of a batch with their index; new ones are stored first."""
        ready, job = batch
        for index, joke in enumerate(ready):
            yield index, joke
        if job is None:
            return
        async for event in self._queue.events(job.id):
            if isinstance(event, JokeEvent):
                await self._archive.store(job, [event.joke])
                yield len(ready) + event.index, event.joke
            elif isinstance(event, StateEvent) and event.job.state.final:
                raise_for_state(event.job)


_ResponderDep = Annotated[_Responder, Depends()]


@router.post(
    "/completions",
    summary="Complete a prompt with jokes",
    response_model=CompletionResponse,
    responses=_COMPLETION_RESPONSES,
)
async def complete(body: CompletionBody, responder: _ResponderDep) -> OpenAIResponse | Response:
    """Complete the prompt with jokes, as one response or as a stream of server-sent events."""
    return await responder.respond(body, CompletionResponse, CompletionResponse)


@router.post(
    "/chat/completions",
    summary="Answer a chat with jokes",
    response_model=ChatResponse,
    responses=_COMPLETION_RESPONSES,
)
async def chat(body: ChatBody, responder: _ResponderDep) -> OpenAIResponse | Response:
    """Answer the last user message with jokes, as one response or as server-sent events."""
    return await responder.respond(body, ChatResponse, ChatChunk)


@router.get("/models", summary="List the models")
async def list_models() -> Models:
    """Return the only model."""
    return Models(data=[Model()])


@router.get("/models/{model}", summary="Get a model", responses=_NOT_FOUND)
async def read_model(model: str) -> Model:
    """Return a model by name."""
    _check_model(model)
    return Model()


def _check_model(name: str) -> None:
    if name != MODEL:
        raise UnknownModelError(f"unknown model {name!r}; the only one is {MODEL!r}")


def _error(message: str, **details: Any) -> bytes:
    return _event(OpenAIError(error=ErrorDetail(message=message, **details)))


def _event(data: BaseModel) -> bytes:
    return format_sse_event(data_str=data.model_dump_json())
