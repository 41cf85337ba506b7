"""What keeps strangers from doing harm: headers, the size of bodies, optional API keys."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBasic, HTTPBasicCredentials
from fastapi.security import HTTPBearer as Bearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from joker.web.errors import render_problem

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Swagger UI and ReDoc style their own elements; ReDoc searches in a worker made from a blob.
_DOCS_POLICY = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'") + (
    "; worker-src blob:"
)
_BODY_SECONDS = 10.0
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class SecurityHeaders:
    """Puts security headers, and those a request has gathered in its state, on every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        gathered: dict[str, str] = {}
        scope.setdefault("state", {})["headers"] = gathered
        docs = scope["path"] in ("/docs", "/redoc")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS | gathered)
                headers["Content-Security-Policy"] = _DOCS_POLICY if docs else _POLICY
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class BodyLimit:
    """Refuses bodies over a size, whether they say their length or not, and those that dawdle."""

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
                sentence = f"the body was not there within {_BODY_SECONDS:g} seconds; send it again"
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


async def require_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(Bearer(auto_error=False))],
    basic: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))],
) -> None:
    """Refuse a request without an API key, where the settings name any.

    A key comes as a bearer token, or as the password that a browser asks for: then the page
    works as it is. What is remembered of it is a digest.

    Raises:
        HTTPException: 401 if the key is missing or wrong.
    """
    digests: list[str] = request.app.state.key_digests
    if not digests:
        return
    given = bearer.credentials if bearer else basic.password if basic else ""
    digest = digest_key(given)
    if not any(hmac.compare_digest(digest, known) for known in digests):
        raise HTTPException(
            401,
            "an API key is needed: send 'Authorization: Bearer KEY', or the key as password",
            headers={"WWW-Authenticate": 'Basic realm="jokes", charset="UTF-8"'},
        )
    request.state.key_digest = digest


def digest_key(key: str) -> str:
    """Return what stands for an API key wherever it is remembered or compared."""
    return hashlib.sha256(key.encode()).hexdigest()


def identify_client(request: Request) -> str:
    """Return who asks: the API key's digest, or the network address.

    An IPv6 client owns a whole /64 network and counts as one.
    """
    digest = getattr(request.state, "key_digest", None)
    if digest is not None:
        return f"key-{digest[:16]}"
    host = request.client.host if request.client else "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return host
