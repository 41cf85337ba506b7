"""The FastAPI application.

ASGI servers such as NGINX Unit, uvicorn and gunicorn call `open_app` in each process; ``deploy/``
has their configurations. ``joker serve`` uses `joker.web.server` instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from joker.compose import (
    add_picked_jokes,
    make_moderator,
    naming_setting,
    open_queue,
    open_store,
)
from joker.core.errors import ConfigError, JokerError
from joker.core.logs import configure_logging
from joker.core.tracing import start_tracing, stop_tracing
from joker.jobs.queue import JobQueue
from joker.settings import Settings, load_settings
from joker.store import Store
from joker.version import __version__
from joker.web import openai_schemas
from joker.web.archive import Archive, PoolFiller
from joker.web.dependencies import digest_key
from joker.web.errors import install_error_handlers
from joker.web.html import STATIC_FILES
from joker.web.limits import RateLimiter
from joker.web.metrics import JobFollower, Metrics
from joker.web.middleware import BodyLimit, HeadAsGet, RequestLog, SecurityHeaders
from joker.web.routes import (
    completions,
    generate,
    joke,
    jokeapi,
    jokes,
    operation,
    page,
)
from joker.web.schemas import JokeApiError, JokeParameters, OpenAIError, Problem
from joker.web.submission import Submission, max_prompts, request_limits

_DESCRIPTION = """Invents question-and-answer jokes.

`curl HOST/joke` prints one; `POST /generate` starts a job, which returns them later. Errors are
`application/problem+json` (RFC 9457), except below `/v1` and `/joke/`, where they have the formats
of OpenAI's API and JokeAPI. Generated text can be offensive or wrong.
"""

# uvicorn and gunicorn stop at this exit code; at any other they restart the process forever.
_FAILED_TO_START = 3

_log = logging.getLogger(__name__)


def open_app() -> FastAPI:
    """Return the application, configured by the environment; it logs JSON lines.

    Raises:
        SystemExit: If a setting is invalid, or there is no broker. The reason is logged, because
            NGINX Unit does not show exceptions of a factory.
    """
    configure_logging()
    try:
        return _open_app()
    except JokerError as error:
        _log.critical("%s", error)
    except Exception:
        _log.critical("the application cannot start", exc_info=True)
    raise SystemExit(_FAILED_TO_START)


def _open_app() -> FastAPI:
    settings = load_settings()
    if settings.broker is None:
        raise ConfigError(
            "several processes share their jobs through Redis: set JOKER_BROKER, "
            "such as redis://localhost:6379/0"
        )
    return create_app(open_queue(settings), open_store(settings), settings)


def create_app(queue: JobQueue, store: Store, settings: Settings) -> FastAPI:
    """Return the application, which closes the queue and the store when it shuts down.

    Args:
        queue: Runs the jobs.
        store: Stores jokes and votes.
        settings: Limits, keys and origins.

    Raises:
        InputError: If the rate limit, the moderation list or the folder for metrics is invalid.
        MissingDependencyError: If tracing is on and OpenTelemetry is not installed.
    """
    start_tracing("joker-web")
    metrics = Metrics(settings)
    follower = JobFollower(queue, metrics)
    with naming_setting("rate_limit"):
        limiter = RateLimiter(settings.rate_limit, settings.broker) if settings.rate_limit else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        background = [asyncio.create_task(archive.prune_hourly())]
        if settings.pool_size:
            await asyncio.to_thread(add_picked_jokes, store, settings)  # for the first visitor
            background.append(asyncio.create_task(filler.run()))
        yield
        await _cancel(background)
        await follower.close()
        if limiter:
            await limiter.close()
        await queue.close()
        store.close()
        stop_tracing()

    moderator = make_moderator(settings)
    archive = Archive(store, moderator, settings)
    filler = PoolFiller(queue, store, archive, settings)
    app = FastAPI(
        title="GPT-2 the Joker",
        version=__version__,
        description=_DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        middleware=_middleware(settings, metrics),
        routes=list(STATIC_FILES),
    )
    app.state.queue = queue
    app.state.settings = settings
    app.state.metrics = metrics
    app.state.store = store
    app.state.archive = archive
    app.state.submission = Submission(queue, follower, archive, moderator, limiter, settings)
    app.state.limiter = limiter
    app.state.key_digests = [digest_key(key.get_secret_value()) for key in settings.api_keys]
    install_error_handlers(app)
    for module in (page, joke, jokes, generate, completions, jokeapi, operation):
        app.include_router(module.router)
    app.openapi = cache(lambda: _openapi(app, settings))  # type: ignore[method-assign]
    return app


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _middleware(settings: Settings, metrics: Metrics) -> list[Middleware]:
    """Return the middleware, outermost first."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID"],
    )
    return [
        Middleware(SecurityHeaders),
        Middleware(RequestLog, metrics=metrics),
        *([cors] if settings.cors_origins else []),
        Middleware(BodyLimit, max_bytes=settings.max_body_bytes),
        Middleware(HeadAsGet),
        # Starlette's GZip leaves event streams uncompressed.
        Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5),
    ]


def _openapi(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI document with this server's limits, and security only if it has API keys.

    Error schemas are added here because no route declares them as its response model.
    """
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        license_info=app.license_info,
        routes=app.routes,
    )
    components = document["components"]
    for error in (Problem, OpenAIError, JokeApiError):
        schema = error.model_json_schema(ref_template="#/components/schemas/{model}")
        components["schemas"].update(schema.pop("$defs", {}))
        components["schemas"][error.__name__] = schema
    _add_limits(document, settings)
    if not settings.api_keys:
        del components["securitySchemes"]
        for path in document["paths"].values():
            for operation in path.values():
                operation.pop("security", None)
    return document


def _add_limits(document: dict[str, Any], settings: Settings) -> None:
    """Add the server's limits to the schemas of the parameters."""
    targets = []
    for path, names in (
        ("/joke", JokeParameters.wire_names),
        ("/joke/{category}", {"prompt": "contains"}),
    ):
        query = document["paths"][path]["get"]["parameters"]
        targets.append(({parameter["name"]: parameter["schema"] for parameter in query}, names))
    for body in (JokeParameters, openai_schemas.CompletionBody, openai_schemas.ChatBody):
        properties = document["components"]["schemas"][body.__name__]["properties"]
        targets.append((properties, body.wire_names))
    for schemas, names in targets:
        for name, maximum in request_limits(settings).items():
            if name not in names:
                continue  # OpenAI's clients may send more tokens, and messages of any length.
            # The limits of a nullable parameter are in its first branch.
            schema = schemas[names[name]]
            limit = "maxLength" if name == "prompt" else "maximum"
            schema.get("anyOf", [schema])[0][limit] = maximum
        if "textprompt" in schemas:
            schemas["textprompt"]["maxLength"] = settings.max_prompt_characters
        for branch in schemas.get("prompt", {}).get("anyOf", ()):
            if branch["type"] == "array":
                branch["maxItems"] = max_prompts(settings)
