"""Middleware around every route; `joker.web.app` has the order."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from joker.core.tracing import Span, span
from joker.web.errors import HeadError, render_problem
from joker.web.metrics import Metrics
from joker.web.security import identify_client

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Swagger UI styles its own elements.
_DOCS_POLICY = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_BODY_SECONDS = 10.0
# Probes come all the time, and what they ask for says little about what users wait for.
_UNTRACED = ("/health/", "/metrics")
_IS_HEAD = "joker.is_head"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

_log = logging.getLogger(__name__)


class SecurityHeaders:
    """Adds security headers, and those that a request collected in its state, to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        collected: dict[str, str] = {}
        scope.setdefault("state", {})["headers"] = collected
        docs = scope["path"] == "/docs"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS | collected)
                headers["Content-Security-Policy"] = _DOCS_POLICY if docs else _POLICY
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class RequestLog:
    """Logs, counts and times every request, and responds to exceptions that no handler caught.

    The log has one JSON line per request, with an id to trace errors and jobs, but never prompts
    and keys.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith(_UNTRACED):
            await self._serve(scope, receive, send, Span("probe", {}))
            return
        parent = Headers(scope=scope).get("traceparent")
        with span(scope["method"], parent=parent, kind="SERVER") as traced:
            await self._serve(scope, receive, send, traced)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, traced: Span) -> None:
        request = Request(scope)
        request_id = request.state.request_id = _choose_id(Headers(scope=scope))
        began = time.perf_counter()
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            _log.exception("fault", extra={"fields": {"request_id": request_id}})
            if status is not None:
                raise
            sentence = "internal error; the server's log has it under this request_id"
            response = render_problem(request, 500, sentence)
            await response(scope, receive, send_with_id)
        finally:
            self._write(request, status, time.perf_counter() - began, traced)

    def _write(self, request: Request, status: int | None, seconds: float, traced: Span) -> None:
        route = getattr(request.scope.get("route"), "path", "none")
        method = request.method if route != "none" else "other"
        self._metrics.http_requests.labels(method, route, status).inc()
        self._metrics.http_seconds.labels(method, route).observe(seconds)
        fields = {
            "request_id": request.state.request_id,
            "client": identify_client(request),
            "method": request.method,
            "path": request.url.path,
            "status": status,
            "seconds": round(seconds, 4),
        }
        task_id = getattr(request.state, "task_id", None)
        if task_id is not None:
            fields["task_id"] = task_id
        traced.name = method if route == "none" else f"{method} {route}"
        traced.attributes |= {
            "http.request.method": method,
            "http.route": None if route == "none" else route,
            "http.response.status_code": status,
            "url.scheme": request.url.scheme,
            "url.path": request.url.path,
            "joker.job.id": task_id,
            "error.type": str(status) if status is not None and status >= 500 else None,
        }
        _log.info("request", extra={"fields": fields})


class BodyLimit:
    """Refuses bodies that are too large, with or without ``Content-Length``, or too slow."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > self._most_bytes:
            refusal = render_problem(Request(scope), 413, self._sentence)
            await refusal(scope, receive, send)
            return
        received = 0
        whole = False
        until = asyncio.get_running_loop().time() + _BODY_SECONDS

        async def receive_at_most() -> Message:
            nonlocal received, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError as error:
                sentence = f"no complete body within {_BODY_SECONDS:g} seconds; send it again"
                raise HTTPException(408, sentence, {"Connection": "close"}) from error
            whole = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._most_bytes:
                raise HTTPException(413, self._sentence)
            return message

        await self._app(scope, receive_at_most, send)

    @property
    def _sentence(self) -> str:
        return f"the body is larger than {self._most_bytes} bytes; shorten it"


class HeadAsGet:
    """Answers HEAD like GET, with the same headers and no body, except where GET takes a joke.

    Uptime checks and link previews use it. FastAPI's routes, unlike Starlette's, support only the
    methods that they name. A route that takes a joke calls `stop_at_head` before, so its status is
    200 and the headers that depend on the joke are missing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # The server reads the method of its own scope, which stays HEAD.
        as_get = {**scope, "method": "GET", _IS_HEAD: True}
        try:
            await self._app(as_get, receive, send_without_body)
        finally:
            scope["route"] = as_get.get("route")


def is_head(request: Request) -> bool:
    """Return whether a request that looks like GET is HEAD."""
    return _IS_HEAD in request.scope


def stop_at_head(request: Request) -> None:
    """Answer HEAD now: a joke that is taken or drafted for it would be told to nobody.

    Raises:
        HeadError: If the request is one.
    """
    if is_head(request):
        raise HeadError


def _choose_id(headers: Headers) -> str:
    """Return the id that the client or proxy sent if it is well-formed, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _WELL_FORMED.fullmatch(given) else secrets.token_hex(8)
