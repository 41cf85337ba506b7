"""The application: one place where the parts of the API are put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from joker.jobs.queue import JobQueue
from joker.settings import Settings
from joker.version import __version__
from joker.web.errors import install_error_handlers
from joker.web.job_metrics import Watch
from joker.web.limits import RateLimiter
from joker.web.metrics import Metrics
from joker.web.middleware import HeadAsGet
from joker.web.openapi import describe
from joker.web.readiness import Readiness
from joker.web.request_log import RequestLog
from joker.web.routes import completions, generate, health, info, joke, metrics, page
from joker.web.security import BodyLimit, SecurityHeaders, digest_key
from joker.web.submission import Intake

_DESCRIPTION = """Invents question-and-answer jokes.

`curl HOST/joke` prints one; `POST /generate` asks for some and comes back for them. Every error is
`application/problem+json` (RFC 9457) and names the parameter. Generated text can be offensive or
wrong.
"""


def create_app(queue: JobQueue, settings: Settings) -> FastAPI:
    """Return the application.

    Args:
        queue: Where requests for jokes wait; closed when the application shuts down.
        settings: Limits, keys and origins.

    Raises:
        ConfigError: If the rate limit cannot be read, or a folder for figures cannot be used.
    """
    figures = Metrics(settings)
    watch = Watch(queue, figures)
    limiter = RateLimiter(settings.rate_limit, settings.broker) if settings.rate_limit else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await watch.close()
        if limiter:
            await limiter.close()
        await queue.close()

    app = FastAPI(
        title="GPT-2 the Joker",
        version=__version__,
        description=_DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=_middleware(settings, figures),
        routes=list(page.FILES),
    )
    app.state.queue = queue
    app.state.settings = settings
    app.state.metrics = figures
    app.state.intake = Intake(queue, watch, limiter, settings)
    app.state.readiness = Readiness(queue)
    app.state.key_digests = [digest_key(key.get_secret_value()) for key in settings.api_keys]
    install_error_handlers(app)
    for module in (page, joke, generate, completions, info, health, metrics):
        app.include_router(module.router)
    app.openapi = cache(lambda: describe(app, settings))  # type: ignore[method-assign]
    return app


def _middleware(settings: Settings, figures: Metrics) -> list[Middleware]:
    """Return what every request passes, outermost first."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID"],
    )
    return [
        Middleware(SecurityHeaders),
        Middleware(RequestLog, metrics=figures),
        *([cors] if settings.cors_origins else []),
        Middleware(BodyLimit, most_bytes=settings.max_body_bytes),
        Middleware(HeadAsGet),
    ]
