"""Dependencies of the routes: what `create_app` keeps in the application's state."""

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


def _from_state(name: str) -> Callable[[Request], Any]:
    # Asynchronous, because FastAPI runs plain functions in a thread, which is slower.
    async def dependency(request: Request) -> Any:
        return getattr(request.app.state, name)

    return dependency


QueueDep = Annotated[JobQueue, Depends(_from_state("queue"))]
SettingsDep = Annotated[Settings, Depends(_from_state("settings"))]
SubmissionDep = Annotated[Submission, Depends(_from_state("submission"))]
MetricsDep = Annotated[Metrics, Depends(_from_state("metrics"))]
StoreDep = Annotated[Store, Depends(_from_state("store"))]
ArchiveDep = Annotated[Archive, Depends(_from_state("archive"))]
LimiterDep = Annotated[RateLimiter | None, Depends(_from_state("limiter"))]
