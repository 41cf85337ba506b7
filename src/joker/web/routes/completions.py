"""``/v1``: jokes for OpenAI clients, as completions and in chats.

A stream has one chunk for each joke, because a joke is checked as a whole before it is told.
For the same reason a draft that reaches the server's limit of tokens is discarded; the client's own
limit only cuts the joke that is told.
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
    Head,
    Model,
    Models,
    OpenAIAnswer,
    OpenAIBody,
    Usage,
)
from joker.web.schemas import ErrorDetail, OpenAIError
from joker.web.security import require_key
from joker.web.streams import EventStream
from joker.web.submission import Telling, check_told, jobs_of

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
        self._head = Head(secrets.token_hex(12), int(time.time()))

    async def answer(
        self, body: OpenAIBody, whole: type[OpenAIAnswer], chunk: type[OpenAIAnswer]
    ) -> OpenAIAnswer | Response:
        """Return the jokes as a whole answer, or as a stream of chunks if the body asks for one."""
        _check_model(body.model)
        wanted = body.to_requests(self._settings)
        if body.stream:
            tellings = await self._submission.begin(self._request, wanted, plain=body.is_plain)
            unfinished = jobs_of(tellings)
            return EventStream(
                self._stream(body, tellings, unfinished, chunk),
                lambda: self._submission.abandon(*unfinished),
            )
        tellings = await self._submission.tell(self._request, wanted, plain=body.is_plain)
        told = [telling.jokes for telling in tellings]
        jokes = dict(enumerate(chain.from_iterable(told)))
        return whole.of(self._head, body, jokes, Usage.of(told, body.most_tokens))

    async def _stream(
        self,
        body: OpenAIBody,
        tellings: Sequence[Telling],
        unfinished: list[Job],
        chunk: type[OpenAIAnswer],
    ) -> AsyncGenerator[bytes]:
        """Yield server-sent events in OpenAI's format; take out the jobs that have finished."""
        told = []
        first = 0
        try:
            for telling in tellings:
                jokes: dict[int, GeneratedJoke] = {}
                async for index, joke in self._jokes_of(telling):
                    jokes[index] = joke
                    yield _event(chunk.of(self._head, body, {first + index: joke}))
                if telling.job:
                    unfinished.remove(telling.job)
                told.append(list(jokes.values()))
                first += len(jokes)
            if body.stream_options and body.stream_options.include_usage:
                yield _event(chunk.of(self._head, body, {}, Usage.of(told, body.most_tokens)))
        except GenerationError as error:
            yield _error(str(error), type="invalid_request_error", code=REFUSED_CODE)
        except HTTPException as error:
            yield _error(error.detail)
        except QueueError as error:
            yield _error(tell_client(error))
        yield format_sse_event(data_str="[DONE]")

    async def _jokes_of(self, telling: Telling) -> AsyncIterator[tuple[int, GeneratedJoke]]:
        """Yield the jokes of a telling by their place in it, stored."""
        ready, job = telling
        for place in enumerate(ready):
            yield place
        if job is None:
            return
        async for event in self._queue.events(job.id):
            if isinstance(event, JokeEvent):
                await self._archive.link(job, [event.joke])
                yield len(ready) + event.index, event.joke
            elif isinstance(event, StateEvent) and event.job.state.final:
                check_told(event.job)


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


def _error(sentence: str, **kind: Any) -> bytes:
    return _event(OpenAIError(error=ErrorDetail(message=sentence, **kind)))


def _event(data: BaseModel) -> bytes:
    return format_sse_event(data_str=data.model_dump_json())
