"""``/joke``: jokes at once, as text, JSON, a page or a stream of events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse, Response
from fastapi.sse import format_sse_event

from joker.core.errors import QueueError
from joker.jobs.job import Job, StateEvent
from joker.web.dependencies import TheArchive, TheQueue, TheSettings, TheSubmission
from joker.web.errors import PROBLEM_RESPONSES, TELLING_RESPONSES
from joker.web.html import HTML, JSON, TEXT, choose_media_type, render_jokes
from joker.web.routes.generate import describe_event
from joker.web.schemas import JokeParameters
from joker.web.security import require_key
from joker.web.streams import EVENTS, EventStream
from joker.web.submission import Telling, jobs_of

_OFFERS = (TEXT, JSON, HTML, EVENTS)
_EXAMPLE = "Why did the kettle blush?\nIt saw the teapot's bare spout.\n"

router = APIRouter(
    tags=["jokes"],
    dependencies=[Depends(require_key)],
    responses={
        **PROBLEM_RESPONSES,
        **TELLING_RESPONSES,
        200: {
            "description": "The jokes, in the format of `Accept`, by default plain text.",
            "content": {
                TEXT: {"example": _EXAMPLE},
                JSON: {"schema": {"$ref": "#/components/schemas/Task"}},
                HTML: {},
                EVENTS: {},
            },
        },
    },
)


class _Streaming:
    """Streams the events of a telling; if the client disconnects, its job is cancelled."""

    def __init__(self, submission: TheSubmission, queue: TheQueue, archive: TheArchive) -> None:
        self._submission = submission
        self._queue = queue
        self._archive = archive

    def stream(self, telling: Telling, **headers: str) -> EventStream:
        """Return a response with the jokes that were ready, then what happens to the job."""
        unfinished = jobs_of([telling])
        return EventStream(
            self._events(telling, unfinished),
            lambda: self._submission.abandon(*unfinished),
            **headers,
        )

    async def _events(self, telling: Telling, unfinished: list[Job]) -> AsyncGenerator[bytes]:
        ready, job = telling
        for index, joke in enumerate(ready):
            yield _encode("joke", {"index": index, **asdict(joke)})
        if job is None:
            task = await self._archive.describe(None, ready)
            yield _encode("state", task.model_dump(mode="json"))
            return
        try:
            async for event in self._queue.events(job.id):
                if isinstance(event, StateEvent) and event.job.state.final:
                    unfinished.clear()
                described = await describe_event(event, job, self._archive, ready)
                yield _encode(event.name, described.data)
        except QueueError:
            return  # a stream without a final state has failed


def _encode(name: str, data: Any) -> bytes:
    # Without ids: a client that reconnects asks anew.
    return format_sse_event(event=name, data_str=json.dumps(data))


@router.get("/joke", summary="Tell a joke now", response_class=PlainTextResponse)
async def tell(
    request: Request,
    parameters: Annotated[JokeParameters, Query()],
    submission: TheSubmission,
    streaming: Annotated[_Streaming, Depends()],
    settings: TheSettings,
) -> Response:
    """Tell jokes and wait for them: `curl HOST/joke` prints one.

    If nothing but `prompt`, `n`, `safe` and `exclude_categories` is given, the pool's jokes that
    fit the prompt come first, at once and never the same one twice for a client. With
    `Accept: text/event-stream`, jokes arrive as they are told, in the events of
    `/generate/{task_id}/events`.
    """
    asked = parameters.to_request(settings)
    if choose_media_type(request.headers.get("accept", ""), _OFFERS) == EVENTS:
        (telling,) = await submission.begin(request, [asked], plain=parameters.is_plain)
        return streaming.stream(telling, Vary="Accept")
    task = await submission.answer(request, parameters)
    return render_jokes(request, task.result, task, _OFFERS, asked=asked)
