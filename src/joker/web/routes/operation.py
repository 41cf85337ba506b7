"""``/health``, ``/info`` and ``/metrics``: for operating this server."""

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
from joker.web.dependencies import MetricsDep, QueueDep, SettingsDep, StoreDep
from joker.web.errors import problem_response, public_message
from joker.web.schemas import REFUSED_TYPE, JokeParameters
from joker.web.submission import max_prompts

_FRESH_SECONDS = 60.0
_QUEUE_SECONDS = 2.0
_PROBE_SECONDS = 10.0
_PROBE = GenerationRequest(seed=1, safe=False, candidates=1)

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """The server is healthy."""

    status: Literal["ok"] = "ok"


@router.get("/health/live", summary="Check that the process responds")
async def live() -> Health:
    """Return 200; restart a process that does not."""
    return Health()


@router.get(
    "/health/ready",
    summary="Check that jokes can be generated",
    responses={503: problem_response("Not ready; `detail` says why.")},
)
async def ready(queue: QueueDep) -> Health:
    """Return 200 if a joke was told in the last minute, or else can be told now."""
    reason = await _why_not_ready(queue)
    if reason is not None:
        raise HTTPException(503, reason)
    return Health()


async def _why_not_ready(queue: JobQueue) -> str | None:
    """Return why no joke can be told now, in one sentence, or None.

    If a joke was told recently, for any client, that is proof enough; otherwise this requests one.
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
        return public_message(error)
    except TimeoutError:
        return f"the queue has not responded for {_QUEUE_SECONDS:g} seconds"


async def _probe(queue: JobQueue) -> str | None:
    # Simultaneous checks share one job, even across processes.
    key = f"probe-{time.time() // _PROBE_SECONDS:.0f}"
    job = await queue.submit(_PROBE, key=key, request_id=key)
    job = await queue.wait(job.id, _PROBE_SECONDS)
    if job.state is State.SUCCESS:
        return None
    if not job.state.final:
        await queue.cancel(job.id)
        return f"no worker told a joke within {_PROBE_SECONDS:g} seconds"
    return job.error or "the job of this check was cancelled"


@router.get(REFUSED_TYPE, include_in_schema=False, response_class=PlainTextResponse)
async def explain_refusal() -> str:
    """Explain the problem type."""
    return (
        "No acceptable joke was found for this request: moderation withheld the drafts or the\n"
        "prompt itself, or no draft followed the prompt. `detail` counts rejected drafts by\n"
        "reason.\n"
        "Change the prompt or the other parameters; the same request will fail again.\n"
    )


class Limits(BaseModel):
    """The limits of requests."""

    jokes: int = Field(description="Jokes for each prompt.")
    prompts: int = Field(description="Prompts in one request.")
    candidates: int = Field(description="Candidates for each joke.")
    new_tokens: int = Field(description="Tokens after the prompt.")
    prompt_characters: int = Field(description="Characters in a prompt.")
    body_bytes: int = Field(description="Bytes in a body.")
    rate: str | None = Field(description="Jokes per client and period; null: unlimited.")
    wait_seconds: int = Field(description="Longest `Prefer: wait`.")
    deadline_seconds: float = Field(description="Time limit of a job in seconds.")
    result_ttl_seconds: float = Field(description="How long a final job is kept, in seconds.")


class Info(BaseModel):
    """This server's version, model, limits and defaults."""

    name: str = "GPT-2 the Joker"
    version: str = __version__
    model: ModelDescription
    categories: tuple[Category, ...] = Field(
        default=CATEGORIES, description="What moderation may flag a joke for (`flags`)."
    )
    limits: Limits
    defaults: JokeParameters = Field(description="The defaults of all parameters.")


@router.get("/info", summary="Version, model, limits and defaults")
async def info(settings: SettingsDep) -> Info:
    """Return version, model, limits and defaults."""
    model = await asyncio.to_thread(describe_model, settings)
    return Info(
        model=model,
        limits=Limits(
            jokes=settings.max_count,
            prompts=max_prompts(settings),
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
        404: problem_response("The request came through a reverse proxy: metrics are not public."),
    },
)
async def read_metrics(
    request: Request, metrics: MetricsDep, queue: QueueDep, store: StoreDep
) -> Response:
    """Return the metrics, even if the queue is down.

    Prometheus scrapes each server directly; through a reverse proxy, this is 404.
    """
    if not {"forwarded", "x-forwarded-for"}.isdisjoint(request.headers.keys()):
        raise HTTPException(404, "metrics are not public; ask the server, not its reverse proxy")
    stats: QueueStats | None
    try:
        stats = await asyncio.wait_for(queue.stats(), _QUEUE_SECONDS)
    except (QueueError, TimeoutError):
        stats = None
    await asyncio.to_thread(metrics.observe_store, store)
    return Response(metrics.render(stats), media_type=CONTENT_TYPE_LATEST)
