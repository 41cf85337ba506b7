"""Middleware; `joker.web.app` has its order."""

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
from joker.web.limits import identify_client
from joker.web.metrics import Metrics

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Swagger UI uses inline styles.
_DOCS_CSP = _CSP.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_BODY_SECONDS = 10.0
_UNTRACED = ("/health/", "/metrics")  # probes, which would outnumber all other traces
_IS_HEAD = "joker.is_head"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

_log = logging.getLogger(__name__)


class SecurityHeaders:
    """Adds security headers and those in ``request.state.headers`` to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state_headers: dict[str, str] = {}
        scope.setdefault("state", {})["headers"] = state_headers
        csp = _DOCS_CSP if scope["path"] == "/docs" else _CSP

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS | state_headers)
                headers["Content-Security-Policy"] = csp
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class RequestLog:
    """Logs, counts, times and traces every request, and responds to unhandled exceptions.

    The log has one line per request, with the request id, but never prompts and keys.
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
        with span(scope["method"], parent=parent, kind="SERVER") as request_span:
            await self._serve(scope, receive, send, request_span)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_span: Span) -> None:
        request = Request(scope)
        request_id = request.state.request_id = _request_id(request.headers)
        started_at = time.perf_counter()
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
            _log.exception("unhandled exception", extra={"fields": {"request_id": request_id}})
            if status is not None:
                raise
            detail = "internal error; the server's log has it under this request_id"
            response = render_problem(request, 500, detail)
            await response(scope, receive, send_with_id)
        finally:
            self._record(request, status, time.perf_counter() - started_at, request_span)

    def _record(
        self, request: Request, status: int | None, seconds: float, request_span: Span
    ) -> None:
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
        request_span.name = method if route == "none" else f"{method} {route}"
        request_span.attributes |= {
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
    """Rejects bodies that are too large, with or without ``Content-Length``, or too slow."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._too_large = f"the body is larger than {max_bytes} bytes; shorten it"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_bytes:
            response = render_problem(Request(scope), 413, self._too_large)
            await response(scope, receive, send)
            return
        received_bytes = 0
        complete = False
        deadline = asyncio.get_running_loop().time() + _BODY_SECONDS

        async def receive_limited() -> Message:
            nonlocal received_bytes, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                detail = f"no complete body within {_BODY_SECONDS:g} seconds; send it again"
                raise HTTPException(408, detail, {"Connection": "close"}) from error
            complete = not message.get("more_body", False)
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._max_bytes:
                raise HTTPException(413, self._too_large)
            return message

        await self._app(scope, receive_limited, send)


class HeadAsGet:
    """Handles HEAD like GET, without the body, for uptime checks and link previews.

    FastAPI's routes, unlike Starlette's, do not support HEAD by themselves. Routes that tell a joke
    call `stop_at_head` first; their response lacks the headers that depend on the joke.
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

        # A copy, because the server needs the original method.
        get_scope = {**scope, "method": "GET", _IS_HEAD: True}
        try:
            await self._app(get_scope, receive, send_without_body)
        finally:
            scope["route"] = get_scope.get("route")


def is_head(request: Request) -> bool:
    """Return whether a request is HEAD, although its method is GET now."""
    return _IS_HEAD in request.scope


def stop_at_head(request: Request) -> None:
    """End a HEAD request, for which a joke would be wasted.

    Raises:
        HeadError: If the request is HEAD.
    """
    if is_head(request):
        raise HeadError


def _request_id(headers: Headers) -> str:
    """Return the client's or proxy's ``X-Request-ID`` if it is well-formed, else a new id."""
    request_id = headers.get("x-request-id", "")
    return request_id if _REQUEST_ID.fullmatch(request_id) else secrets.token_hex(8)
