"""The request log: one JSON line per request, with an id to trace errors and jobs.

Prompts and keys are never logged.
"""

from __future__ import annotations

import logging
import re
import secrets
import time

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from joker.core.tracing import Span, span
from joker.web.errors import render_problem
from joker.web.metrics import Metrics
from joker.web.security import identify_client

_log = logging.getLogger(__name__)
# Probes come all the time, and what they ask for says little about what users wait for.
_UNTRACED = ("/health/", "/metrics")
_WELL_FORMED = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestLog:
    """Logs, counts and times every request, and responds to exceptions that no handler caught."""

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


def _choose_id(headers: Headers) -> str:
    """Return the id that the client or proxy sent if it is well-formed, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _WELL_FORMED.fullmatch(given) else secrets.token_hex(8)
