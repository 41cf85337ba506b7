"""``/v1``: jokes for OpenAI clients, as completions and in chats.

A stream has one chunk for each joke, because a joke is checked as a whole before it is told.
For the same reason no text ever ends at the limit of tokens: a draft that reaches it is discarded,
and `finish_reason` is always `stop`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel

from joker.core.errors import QueueError
from joker.jobs.job import Job, JokeEvent, State, StateEvent
from joker.web.dependencies import TheArchive, TheQueue, TheSettings, TheSubmission
from joker.web.errors import (
    BODY_RESPONSES,
    PROBLEM_RESPONSES,
    REFUSED_CODE,
    TELLING_RESPONSES,
    UnknownModelError,
    describe_for_openai,
    describe_problem,
    tell_client,
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
    OpenAIAnswer,
    OpenAIBody,
    StreamOptions,
    Usage,
)
from joker.web.schemas import ErrorDetail, OpenAIError
from joker.web.security import require_key

_NOT_FOUND = describe_for_openai({404: describe_problem("There is no such model.")})
_TELLING: dict[int | str, dict[str, Any]] = {
    **describe_for_openai(BODY_RESPONSES),
    **_NOT_FOUND,
    **describe_for_openai(TELLING_RESPONSES),
    200: {"content": {"text/event-stream": {}}},
}

router = APIRouter(
    prefix="/v1",
    tags=["OpenAI"],
    dependencies=[Depends(require_key)],
    responses=describe_for_openai(PROBLEM_RESPONSES),
)


class _Answering:
    """Has the jokes of a body told, at once or as a stream of server-sent events."""

    def __init__(
        self,
        request: Request,
        submission: TheSubmission,
        queue: TheQueue,
        archive: TheArchive,
        settings: TheSettings,
    ) -> None:
        self._request = request
        self._submission = submission
        self._queue = queue
        self._archive = archive
        self._settings = settings

    async def answer(
        self, body: OpenAIBody, whole: type[OpenAIAnswer], chunk: type[OpenAIAnswer]
    ) -> OpenAIAnswer | Response:
        """Return the jokes as a whole answer, or as a stream of chunks if the body asks for one."""
        _check_model(body.model)
        asked = body.to_request(self._settings)
        if body.stream:
            job = await self._submission.submit(self._request, asked)
            options = body.stream_options or StreamOptions()
            events = self._stream(job, chunk, with_usage=bool(options.include_usage))
            return StreamingResponse(events, media_type="text/event-stream")
        _, job = await self._submission.tell(self._request, asked)
        assert job is not None
        return whole.of(job, dict(enumerate(job.jokes)), Usage.of(job))

    async def _stream(
        self, job: Job, chunk: type[OpenAIAnswer], *, with_usage: bool
    ) -> AsyncIterator[bytes]:
        """Yield server-sent events in OpenAI's format; cancel the job if the client disconnects."""
        state = job.state
        try:
            async for event in self._queue.events(job.id):
                if isinstance(event, JokeEvent):
                    await self._archive.link(job, [event.joke])
                    yield _event(chunk.of(job, {event.index: event.joke}))
                elif isinstance(event, StateEvent):
                    state = event.job.state
                    if state.final and state is not State.SUCCESS:
                        yield _describe_failure(event.job)
                    elif state.final and with_usage:
                        yield _event(chunk.of(job, {}, Usage.of(event.job)))
        except QueueError as error:
            yield _error(tell_client(error))
        finally:
            if not state.final:
                await self._submission.abandon(job)
        yield format_sse_event(data_str="[DONE]")


_TheAnswering = Annotated[_Answering, Depends()]


@router.post(
    "/completions",
    summary="Complete a prompt with jokes",
    response_model=CompletionResponse,
    responses=_TELLING,
)
async def complete(body: CompletionBody, answering: _TheAnswering) -> OpenAIAnswer | Response:
    """Complete the prompt to jokes, as one response or as a stream of server-sent events."""
    return await answering.answer(body, CompletionResponse, CompletionResponse)


@router.post(
    "/chat/completions",
    summary="Answer a chat with jokes",
    response_model=ChatResponse,
    responses=_TELLING,
)
async def chat(body: ChatBody, answering: _TheAnswering) -> OpenAIAnswer | Response:
    """Answer the last user message with jokes, as one response or as server-sent events."""
    return await answering.answer(body, ChatResponse, ChatChunk)


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


def _describe_failure(job: Job) -> bytes:
    sentence = job.error or "the joke was cancelled; ask again"
    if job.refused:
        return _error(sentence, type="invalid_request_error", code=REFUSED_CODE)
    return _error(sentence)


def _error(sentence: str, **kind: Any) -> bytes:
    return _event(OpenAIError(error=ErrorDetail(message=sentence, **kind)))


def _event(data: BaseModel) -> bytes:
    return format_sse_event(data_str=data.model_dump_json())
