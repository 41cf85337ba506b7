"""Dependencies of the routes: the parts of the application, which `create_app` puts together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request

from joker.jobs.queue import JobQueue
from joker.settings import Settings
from joker.store import Store
from joker.web.archive import Archive
from joker.web.limits import RateLimiter
from joker.web.metrics import Metrics
from joker.web.submission import Submission


def _part(name: str) -> Callable[[Request], Any]:
    # FastAPI would call a plain function in a thread, which takes longer than the look-up.
    async def find(request: Request) -> Any:
        return getattr(request.app.state, name)

    return find


TheQueue = Annotated[JobQueue, Depends(_part("queue"))]
TheSettings = Annotated[Settings, Depends(_part("settings"))]
TheSubmission = Annotated[Submission, Depends(_part("submission"))]
TheMetrics = Annotated[Metrics, Depends(_part("metrics"))]
TheStore = Annotated[Store, Depends(_part("store"))]
TheArchive = Annotated[Archive, Depends(_part("archive"))]
TheLimiter = Annotated[RateLimiter | None, Depends(_part("limiter"))]
