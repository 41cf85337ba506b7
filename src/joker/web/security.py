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


def identify_client(request: Request) -> str:
    """Return the client's API key digest, or its network address.

    An IPv6 client usually has a whole /64 network, so that counts as one client.
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
