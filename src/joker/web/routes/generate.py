"""``/generate``: jobs that generate jokes, to poll, wait for, stream or cancel."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from joker.core.errors import QueueError, QueueStoppedError
from joker.jobs.job import Event, Job, JokeEvent, StateEvent
from joker.web.archive import Archive
from joker.web.dependencies import ArchiveDep, QueueDep, SettingsDep, SubmissionDep, require_key
from joker.web.errors import BODY_RESPONSES, PROBLEM_RESPONSES, problem_response
from joker.web.limits import identify_client
from joker.web.schemas import JokeParameters, LinkedJoke, Task

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})(?![\d.])", re.IGNORECASE)
_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: problem_response("There is no such job, or it has been deleted.")
}

router = APIRouter(
    prefix="/generate",
    tags=["jobs"],
    dependencies=[Depends(require_key)],
    responses=PROBLEM_RESPONSES,
)


@router.post(
    "",
    status_code=202,
    summary="Submit a job",
    responses={
        **BODY_RESPONSES,
        200: {"model": Task, "description": "The job finished within the time of `Prefer: wait`."},
    },
)
async def create(
    body: JokeParameters,
    request: Request,
    response: Response,
    submission: SubmissionDep,
    queue: QueueDep,
    archive: ArchiveDep,
    settings: SettingsDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="Any text; the same request with the same key gives the same job.",
        ),
    ] = None,
    prefer: Annotated[
        str | None,
        Header(description="`wait=N` returns the jokes if they are ready within N seconds."),
    ] = None,
) -> Task:
    """Submit a request for jokes; the result will be at `/generate/{task_id}`."""
    key = idempotency_key and f"client-{identify_client(request)}-{idempotency_key}"
    job = await submission.submit(request, body.to_request(settings, key), key)
    response.headers["Location"] = f"/generate/{job.id}"
    wait = _WAIT.search(prefer or "")
    if wait:
        seconds = min(int(wait[1]), settings.max_wait_seconds)
        response.headers["Preference-Applied"] = f"wait={seconds}"
        # If this server is shutting down, the client polls another one.
        with suppress(QueueStoppedError):
            job = await queue.wait(job.id, seconds)
        if job.state.final:
            response.status_code = 200
    return await archive.to_task(job)


async def _get_job(task_id: str, request: Request, queue: QueueDep) -> Job:
    request.state.task_id = task_id
    return await queue.get(task_id)


@router.get("/{task_id}", summary="Get a job", responses=_NOT_FOUND)
async def read(job: Annotated[Job, Depends(_get_job)], archive: ArchiveDep) -> Task:
    """Return the state of a job and its jokes so far."""
    return await archive.to_task(job)


@router.delete("/{task_id}", summary="Cancel a job", responses=_NOT_FOUND)
async def cancel(task_id: str, request: Request, queue: QueueDep, archive: ArchiveDep) -> Task:
    """Revoke a job unless it is final, and return it."""
    request.state.task_id = task_id
    return await archive.to_task(await queue.cancel(task_id))


@router.get(
    "/{task_id}/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses=_NOT_FOUND,
)
async def stream(
    job: Annotated[Job, Depends(_get_job)],
    queue: QueueDep,
    archive: ArchiveDep,
    last_event_id: Annotated[
        str,
        Header(
            pattern=r"^([0-9]{1,20}(-[0-9]{1,20})?)?$",
            description="Id of the last event received; the stream continues after it.",
        ),
    ] = "",
) -> AsyncIterator[ServerSentEvent]:
    """Stream the events of a job until it is final.

    Events: `partial` (a joke's text so far), `joke` (one joke told) and `state` (the job).
    """
    try:
        async for event in queue.events(job.id, last_event_id):
            yield await to_server_sent_event(event, job, archive)
    except QueueError:
        # It is too late for an error response. The client reconnects, with its last event's id.
        return


async def to_server_sent_event(
    event: Event, job: Job, archive: Archive, ready: Sequence[LinkedJoke] = ()
) -> ServerSentEvent:
    """Return an event of a job, whose jokes follow those that came from the pool."""
    data: dict[str, Any]
    if isinstance(event, StateEvent):
        task = await archive.to_task(event.job, ready)
        data = task.model_dump(mode="json")
    else:
        data = {"index": event.index + len(ready)}
        if isinstance(event, JokeEvent):
            (joke,) = await archive.store(job, [event.joke])
            data |= asdict(joke)
        else:
            data |= {"question": event.question, "answer": event.answer}
    return ServerSentEvent(id=event.id, event=event.name, data=data)
