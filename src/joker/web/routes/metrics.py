"""``/metrics``: figures for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from joker.core.errors import QueueError
from joker.jobs.queue import Load
from joker.web.dependencies import TheMetrics, TheQueue

_QUEUE_SECONDS = 2.0

router = APIRouter(tags=["operation"])


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(figures: TheMetrics, queue: TheQueue) -> Response:
    """Return the figures as text, whether the queue answers or not."""
    load: Load | None = None
    try:
        async with asyncio.timeout(_QUEUE_SECONDS):
            load = await queue.load()
    except (QueueError, TimeoutError):
        pass
    return Response(figures.render(load), media_type=CONTENT_TYPE_LATEST)
