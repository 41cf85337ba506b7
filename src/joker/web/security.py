"""Optional API keys, and the identity of clients."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import (
    HTTPAuthorizationCredentials,
    HTTPBasic,
    HTTPBasicCredentials,
    HTTPBearer,
)
from starlette.exceptions import HTTPException


async def require_key(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    basic: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))],
) -> None:
    """Refuse a request without a valid API key, if the settings name any.

    A key is sent as a bearer token, or as the password that a browser asks for, so the page works
    too. Only its digest is kept.

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
            "an API key is required: send 'Authorization: Bearer KEY', or the key as password",
            headers={"WWW-Authenticate": 'Basic realm="jokes", charset="UTF-8"'},
        )
    request.state.key_digest = digest


def digest_key(key: str) -> str:
    """Return the digest under which an API key is kept and compared."""
    return hashlib.sha256(key.encode()).hexdigest()


def identify_client(request: Request) -> str:
    """Return the client's API key digest, or its network address.

    An IPv6 client owns a whole /64 network, which counts as one client.
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
