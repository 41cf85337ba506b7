"""``/health``, ``/info`` and ``/metrics``: how this server is, what it is, and what it allows."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from joker.core.errors import QueueError
from joker.generation.request import GenerationRequest
from joker.jobs.job import State
from joker.jobs.queue import JobQueue, QueueStats
from joker.version import __version__
from joker.web.dependencies import TheMetrics, TheQueue, TheSettings, TheStore
from joker.web.errors import describe_problem, tell_client
from joker.web.schemas import JokeParameters

_FRESH_SECONDS = 60.0
_QUEUE_SECONDS = 2.0
_PROBE_SECONDS = 10.0
_PROBE = GenerationRequest(seed=1, safe=False, candidates=1)

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


@router.get("/health/live", summary="Is the process alive?")
async def live() -> Health:
    """Answer; a process that does not should be started again."""
    return Health()


@router.get(
    "/health/ready",
    summary="Would a joke be told now?",
    responses={503: describe_problem("No: the problem says why.")},
)
async def ready(queue: TheQueue) -> Health:
    """Answer 200 if the queue answers and a joke was told in the last minute, or is told now."""
    obstacle = await _find_obstacle(queue)
    if obstacle is not None:
        raise HTTPException(503, obstacle)
    return Health()


async def _find_obstacle(queue: JobQueue) -> str | None:
    """Return why a joke asked for now would not be told, in one sentence, or None.

    A joke told a short while ago proves that it would, whoever asked for it; where nobody did, this
    asks for one. So it costs a joke a minute at most, and none under load.
    """
    try:
        stats = await asyncio.wait_for(queue.stats(), _QUEUE_SECONDS)
        if not stats.workers:
            return "no worker is there to tell jokes; start one with 'joker worker'"
        if stats.told_seconds_ago is not None and stats.told_seconds_ago < _FRESH_SECONDS:
            return None
        return await _probe(queue)
    except QueueError as error:
        return tell_client(error)
    except TimeoutError:
        return f"the queue has not answered for {_QUEUE_SECONDS:g} seconds"


async def _probe(queue: JobQueue) -> str | None:
    # Checks that come together, from several processes too, share one joke.
    key = f"probe-{time.time() // _PROBE_SECONDS:.0f}"
    job = await queue.submit(_PROBE, key=key, request_id=key)
    job = await queue.wait(job.id, _PROBE_SECONDS)
    if job.state is State.SUCCESS:
        return None
    if not job.state.final:
        await queue.cancel(job.id)
        return f"no worker told a joke within {_PROBE_SECONDS:g} seconds"
    return job.error or "the joke that was to prove it was cancelled"


class Limits(BaseModel):
    """What a client may ask for."""

    jokes: int = Field(description="Jokes in one request.")
    candidates: int = Field(description="Candidates of each joke.")
    new_tokens: int = Field(description="Tokens behind the prompt.")
    prompt_characters: int = Field(description="Characters of a prompt.")
    body_bytes: int = Field(description="Bytes of a body.")
    rate: str | None = Field(description="Jokes for each client in a time; null: any number.")
    wait_seconds: int = Field(description="Longest `Prefer: wait`.")
    deadline_seconds: float = Field(description="Seconds until a job fails that is not told.")
    result_ttl_seconds: float = Field(description="Seconds that a final job can be asked for.")


class Info(BaseModel):
    """What this server is."""

    name: str = "GPT-2 the Joker"
    version: str = __version__
    limits: Limits
    defaults: JokeParameters = Field(description="What holds where a parameter is missing.")


@router.get("/info", summary="What this server is and allows")
async def info(settings: TheSettings) -> Info:
    """Return version, limits and defaults."""
    return Info(
        limits=Limits(
            jokes=settings.max_count,
            candidates=settings.max_candidates,
            new_tokens=settings.max_new_tokens,
            prompt_characters=settings.max_prompt_characters,
            body_bytes=settings.max_body_bytes,
            rate=settings.rate_limit,
            wait_seconds=settings.max_wait_seconds,
            deadline_seconds=settings.deadline_seconds,
            result_ttl_seconds=settings.result_ttl_seconds,
        ),
        defaults=JokeParameters(candidates=settings.candidates),
    )


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        404: describe_problem("Asked through a reverse proxy: metrics are not public."),
    },
)
async def metrics(
    request: Request, own_metrics: TheMetrics, queue: TheQueue, store: TheStore
) -> Response:
    """Return the metrics as text, whether the queue answers or not.

    Prometheus asks each server itself: through a reverse proxy there is nothing here.
    """
    if not {"forwarded", "x-forwarded-for"}.isdisjoint(request.headers.keys()):
        raise HTTPException(404, "metrics are not public; ask the server, not its reverse proxy")
    stats: QueueStats | None
    try:
        stats = await asyncio.wait_for(queue.stats(), _QUEUE_SECONDS)
    except (QueueError, TimeoutError):
        stats = None
    await asyncio.to_thread(own_metrics.observe_store, store)
    return Response(own_metrics.render(stats), media_type=CONTENT_TYPE_LATEST)
