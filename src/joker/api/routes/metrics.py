"""``/metrics``: this process's figures for Prometheus."""

from __future__ import annotations

import math

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from joker.api.parts import TheMetrics, TheQueue
from joker.core.errors import QueueError

router = APIRouter(tags=["operation"])


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
async def metrics(figures: TheMetrics, queue: TheQueue) -> Response:
    """Return the figures as text; what the queue cannot say is NaN."""
    try:
        figures.waiting.set(await queue.waiting())
    except QueueError:
        figures.waiting.set(math.nan)
    return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)
