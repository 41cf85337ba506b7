"""Dependencies of the routes: an API key, and what `create_app` keeps in the app's state."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import (
    HTTPAuthorizationCredentials,
    HTTPBasic,
    HTTPBasicCredentials,
    HTTPBearer,
)
from starlette.exceptions import HTTPException

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


async def require_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    basic: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))],
) -> None:
    """Require a valid API key, if the settings have any.

    Clients send it as a bearer token, and browsers as the password of HTTP Basic authentication.

    Raises:
        HTTPException: 401 if the key is missing or wrong.
    """
    digests: list[str] = request.app.state.key_digests
    if not digests:
        return
    key = bearer.credentials if bearer else basic.password if basic else ""
    digest = digest_key(key)
    if not any(hmac.compare_digest(digest, known) for known in digests):
        raise HTTPException(
            401,
            "an API key is required: send 'Authorization: Bearer KEY', or the key as password",
            headers={"WWW-Authenticate": 'Basic realm="jokes", charset="UTF-8"'},
        )
    request.state.key_digest = digest


def digest_key(key: str) -> str:
    """Return an API key's digest; the application keeps only digests."""
    return hashlib.sha256(key.encode()).hexdigest()
