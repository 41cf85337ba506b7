"""Rate limits, shared through Redis if there is a broker, and who counts as one client."""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from typing import Literal

from fastapi import Request
from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from redis.asyncio import BlockingConnectionPool
from starlette.exceptions import HTTPException

from joker.core.errors import ConfigError, InputError, plural
from joker.jobs.connection import TIMEOUTS, open_pool

_POOL_TIMEOUT_SECONDS = 5.0
_MAX_CONNECTIONS = 16

_log = logging.getLogger(__name__)


class RateLimiter:
    """Limits the number of jokes and votes per client and period.

    Args:
        rate: Such as ``60/minute``.
        broker: URL of the Redis that counts for several processes; None counts in this process.

    Raises:
        ConfigError: If the rate is invalid.
    """

    def __init__(self, rate: str, broker: str | None = None) -> None:
        try:
            self._rate = parse(rate)
        except ValueError as error:
            raise ConfigError(
                f"cannot read the rate limit {rate!r}; write it as 60/minute"
            ) from error
        self._connections: BlockingConnectionPool | None = None
        storage: Storage = MemoryStorage()
        if broker:
            self._connections = open_pool(
                broker, max_connections=_MAX_CONNECTIONS, timeout=_POOL_TIMEOUT_SECONDS, **TIMEOUTS
            )
            storage = RedisStorage(
                "async+redis://",
                wrap_exceptions=True,
                implementation="redispy",
                # The queue's hash tag, so that a cluster keeps these keys on the queue's node.
                key_prefix="{joker}:rates",
                connection_pool=self._connections,  # type: ignore[arg-type]
            )
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._connections:
            await self._connections.aclose()

    async def take(
        self, client: str, amount: int, resource: Literal["jokes", "votes"] = "jokes"
    ) -> dict[str, str]:
        """Count a client's jokes or votes; each has its own window at the same rate.

        Returns:
            The headers ``RateLimit`` and ``RateLimit-Policy`` of the IETF's draft
            (draft-ietf-httpapi-ratelimit-headers).

        Raises:
            InputError: If the amount exceeds the whole limit.
            HTTPException: 429 if the client has reached the limit.
        """
        limit, period_seconds = self._rate.amount, self._rate.get_expiry()
        if amount > limit:
            raise InputError(
                f"at most {limit} {plural(limit, resource[:-1])} in one request; ask for fewer"
            )
        try:
            allowed = await self._limiter.hit(self._rate, resource, client, cost=amount)
            window = await self._limiter.get_window_stats(self._rate, resource, client)
        except StorageError as error:
            # Let requests through: the queue uses the same Redis, and reports that it is down.
            _log.warning("the rate limit is not applied: %s", error)
            return {}
        reset_seconds = max(1, math.ceil(window.reset_time - time.time()))
        headers = {
            "RateLimit-Policy": f'"{resource}";q={limit};w={period_seconds}',
            "RateLimit": f'"{resource}";r={window.remaining};t={reset_seconds}',
        }
        if not allowed:
            raise HTTPException(
                429,
                f"{resource} are limited to {limit} in {period_seconds} "
                f"{plural(period_seconds, 'second')}; "
                f"try again in {reset_seconds} {plural(reset_seconds, 'second')}",
                headers=headers | {"Retry-After": str(reset_seconds)},
            )
        return headers


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
