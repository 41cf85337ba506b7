"""``/joke``: jokes in one request, as text, JSON, a page or server-sent events."""

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
from joker.web.dependencies import ArchiveDep, QueueDep, SettingsDep, SubmissionDep, require_key
from joker.web.errors import GENERATION_RESPONSES, PROBLEM_RESPONSES
from joker.web.html import HTML, JSON, TEXT, choose_media_type, render_jokes
from joker.web.routes.generate import to_server_sent_event
from joker.web.schemas import JokeParameters
from joker.web.streams import EVENT_STREAM, EventStream
from joker.web.submission import JokeBatch, jobs_of

_OFFERS = (TEXT, JSON, HTML, EVENT_STREAM)
_EXAMPLE = "Why did the kettle blush?\nIt saw the teapot's bare spout.\n"

router = APIRouter(
    tags=["jokes"],
    dependencies=[Depends(require_key)],
    responses={
        **PROBLEM_RESPONSES,
        **GENERATION_RESPONSES,
        200: {
            "description": "The jokes, in the format of `Accept`, by default plain text.",
            "content": {
                TEXT: {"example": _EXAMPLE},
                JSON: {"schema": {"$ref": "#/components/schemas/Task"}},
                HTML: {},
                EVENT_STREAM: {},
            },
        },
    },
)


class _Streamer:
    """Streams the events of a batch; if the client disconnects, its job is cancelled."""

    def __init__(self, submission: SubmissionDep, queue: QueueDep, archive: ArchiveDep) -> None:
        self._submission = submission
        self._queue = queue
        self._archive = archive

    def stream(self, batch: JokeBatch, **headers: str) -> EventStream:
        """Return a stream of the jokes from the pool and the events of the job."""
        unfinished = jobs_of([batch])
        return EventStream(
            self._events(batch, unfinished),
            lambda: self._submission.abandon(*unfinished),
            **headers,
        )

    async def _events(self, batch: JokeBatch, unfinished: list[Job]) -> AsyncGenerator[bytes]:
        ready, job = batch
        for index, joke in enumerate(ready):
            yield _encode("joke", {"index": index, **asdict(joke)})
        if job is None:
            task = await self._archive.to_task(None, ready)
            yield _encode("state", task.model_dump(mode="json"))
            return
        try:
            async for event in self._queue.events(job.id):
                if isinstance(event, StateEvent) and event.job.state.final:
                    unfinished.clear()
                server_sent = await to_server_sent_event(event, job, self._archive, ready)
                yield _encode(event.name, server_sent.data)
        except QueueError:
            return  # clients see that the final state is missing


def _encode(name: str, data: Any) -> bytes:
    # Without an id, because a client that reconnects makes a new request.
    return format_sse_event(event=name, data_str=json.dumps(data))


@router.get("/joke", summary="Tell a joke now", response_class=PlainTextResponse)
async def tell(
    request: Request,
    parameters: Annotated[JokeParameters, Query()],
    submission: SubmissionDep,
    streamer: Annotated[_Streamer, Depends()],
    settings: SettingsDep,
) -> Response:
    """Tell jokes and wait for them: `curl HOST/joke` prints one.

    With no parameters other than `prompt`, `n`, `safe` and `exclude_categories`, matching jokes
    from the pool come first: they are ready at once, and a client never gets the same one twice.
    With `Accept: text/event-stream`, jokes arrive as they are told, in the events of
    `/generate/{task_id}/events`.
    """
    joke_request = parameters.to_request(settings)
    if choose_media_type(request.headers.get("accept", ""), _OFFERS) == EVENT_STREAM:
        (batch,) = await submission.start(request, [joke_request], plain=parameters.is_plain)
        return streamer.stream(batch, Vary="Accept")
    task = await submission.tell_task(request, parameters)
    return render_jokes(request, task.result, task, _OFFERS, joke_request=joke_request)
