"""``/health``, ``/info`` and ``/metrics``: state, version, model and limits of this server."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from joker.compose import ModelDescription, describe_model
from joker.core.errors import QueueError
from joker.generation.moderation import CATEGORIES, Category
from joker.generation.request import GenerationRequest
from joker.jobs.job import State
from joker.jobs.queue import JobQueue, QueueStats
from joker.version import __version__
from joker.web.dependencies import TheMetrics, TheQueue, TheSettings, TheStore
from joker.web.errors import describe_problem, tell_client
from joker.web.schemas import REFUSED_TYPE, JokeParameters
from joker.web.submission import max_prompts_of

_FRESH_SECONDS = 60.0
_QUEUE_SECONDS = 2.0
_PROBE_SECONDS = 10.0
_PROBE = GenerationRequest(seed=1, safe=False, candidates=1)

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """The check succeeded."""

    status: Literal["ok"] = "ok"


@router.get("/health/live", summary="Check that the process responds")
async def live() -> Health:
    """Respond; a process that does not should be restarted."""
    return Health()


@router.get(
    "/health/ready",
    summary="Check that jokes can be generated",
    responses={503: describe_problem("Not ready; `detail` says why.")},
)
async def ready(queue: TheQueue) -> Health:
    """Return 200 if the queue responds and a joke was told in the last minute, or is told now."""
    obstacle = await _find_obstacle(queue)
    if obstacle is not None:
        raise HTTPException(503, obstacle)
    return Health()


async def _find_obstacle(queue: JobQueue) -> str | None:
    """Return why a joke could not be told now, in one sentence, or None.

    A joke told recently, for any client, proves that it could; without one, this asks for a joke.
    So it costs at most one joke a minute, and none under load.
    """
    try:
        stats = await asyncio.wait_for(queue.stats(), _QUEUE_SECONDS)
        if not stats.workers:
            return "no worker is running; start one with 'joker worker'"
        if stats.told_seconds_ago is not None and stats.told_seconds_ago < _FRESH_SECONDS:
            return None
        return await _probe(queue)
    except QueueError as error:
        return tell_client(error)
    except TimeoutError:
        return f"the queue has not answered for {_QUEUE_SECONDS:g} seconds"


async def _probe(queue: JobQueue) -> str | None:
    # Simultaneous checks, even of several processes, share one joke.
    key = f"probe-{time.time() // _PROBE_SECONDS:.0f}"
    job = await queue.submit(_PROBE, key=key, request_id=key)
    job = await queue.wait(job.id, _PROBE_SECONDS)
    if job.state is State.SUCCESS:
        return None
    if not job.state.final:
        await queue.cancel(job.id)
        return f"no worker told a joke within {_PROBE_SECONDS:g} seconds"
    return job.error or "the joke for this check was cancelled"


@router.get(REFUSED_TYPE, include_in_schema=False, response_class=PlainTextResponse)
async def explain_refusal() -> str:
    """Explain the problem of this type."""
    return (
        "No acceptable joke was found for this request: moderation withheld the drafts or the\n"
        "prompt itself, or no draft followed the prompt. `detail` counts rejected drafts by\n"
        "reason.\n"
        "Change the prompt or the other parameters; the same request will fail again.\n"
    )


class Limits(BaseModel):
    """The limits of a request."""

    jokes: int = Field(description="Jokes for each prompt.")
    prompts: int = Field(description="Prompts in one request.")
    candidates: int = Field(description="Candidates of each joke.")
    new_tokens: int = Field(description="Tokens after the prompt.")
    prompt_characters: int = Field(description="Characters in a prompt.")
    body_bytes: int = Field(description="Bytes in a body.")
    rate: str | None = Field(description="Jokes per client and period; null: unlimited.")
    wait_seconds: int = Field(description="Longest `Prefer: wait`.")
    deadline_seconds: float = Field(description="Time limit of a job in seconds.")
    result_ttl_seconds: float = Field(description="How long a final job is kept, in seconds.")


class Info(BaseModel):
    """Version, model, limits and defaults of this server."""

    name: str = "GPT-2 the Joker"
    version: str = __version__
    model: ModelDescription
    categories: tuple[Category, ...] = Field(
        default=CATEGORIES, description="What moderation may flag a joke for (`flags`)."
    )
    limits: Limits
    defaults: JokeParameters = Field(description="The defaults of all parameters.")


@router.get("/info", summary="Version, model, limits and defaults")
async def info(settings: TheSettings) -> Info:
    """Return version, model, limits and defaults."""
    model = await asyncio.to_thread(describe_model, settings)
    return Info(
        model=model,
        limits=Limits(
            jokes=settings.max_count,
            prompts=max_prompts_of(settings),
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
        404: describe_problem("The request came through a reverse proxy: metrics are not public."),
    },
)
async def metrics(
    request: Request, own_metrics: TheMetrics, queue: TheQueue, store: TheStore
) -> Response:
    """Return the metrics as text, whether the queue answers or not.

    Prometheus scrapes each server directly; through a reverse proxy this is not found.
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
