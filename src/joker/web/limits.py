"""Rate limits per client, counted in jokes; shared through Redis where a broker is used."""

from __future__ import annotations

import logging
import math
import time

from limits import parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from redis.asyncio import BlockingConnectionPool
from starlette.exceptions import HTTPException

from joker.core.errors import ConfigError, InputError
from joker.core.plural import plural
from joker.jobs.connection import TIMEOUTS, open_pool

_TURN_SECONDS = 5.0
_CONNECTIONS = 16

_log = logging.getLogger(__name__)


class RateLimiter:
    """Limits the jokes that each client gets in a period.

    Args:
        rate: Such as ``60/minute``.
        broker: URL of the Redis that several processes share; None counts in this process only.

    Raises:
        ConfigError: If the rate cannot be read.
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
            # Calls beyond the number of connections wait.
            self._connections = open_pool(
                broker, max_connections=_CONNECTIONS, timeout=_TURN_SECONDS, **TIMEOUTS
            )
            storage = RedisStorage(
                "async+redis://",
                wrap_exceptions=True,
                implementation="redispy",
                # With the queue's hash tag: on a cluster, its node has these keys too.
                key_prefix="{joker}:rates",
                connection_pool=self._connections,  # type: ignore[arg-type]
            )
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._connections:
            await self._connections.aclose()

    async def take(self, client: str, amount: int, of: str = "jokes") -> dict[str, str]:
        """Count jokes that a client requests, or votes that it casts.

        Args:
            client: Its identity.
            amount: How many.
            of: What is counted; each kind is counted separately, at the same rate.

        Returns:
            The headers ``RateLimit`` and ``RateLimit-Policy`` of the IETF's draft
            (draft-ietf-httpapi-ratelimit-headers).

        Raises:
            InputError: If it is more than the limit ever allows.
            HTTPException: 429 if the client has reached the limit.
        """
        if amount > self._rate.amount:
            raise InputError(
                f"at most {self._rate.amount} {plural(self._rate.amount, of[:-1])} in one request; "
                "ask for fewer"
            )
        try:
            granted = await self._limiter.hit(self._rate, of, client, cost=amount)
            window = await self._limiter.get_window_stats(self._rate, of, client)
        except StorageError as error:
            # The queue uses the same Redis and reports that it is down.
            _log.warning("rate limits are not counted: %s", error)
            return {}
        reset_seconds = max(1, math.ceil(window.reset_time - time.time()))
        most, period_seconds = self._rate.amount, self._rate.get_expiry()
        headers = {
            "RateLimit-Policy": f'"{of}";q={most};w={period_seconds}',
            "RateLimit": f'"{of}";r={window.remaining};t={reset_seconds}',
        }
        if not granted:
            raise HTTPException(
                429,
                f"{of} are limited to {most} in {period_seconds} "
                f"{plural(period_seconds, 'second')}; "
                f"try again in {reset_seconds} {plural(reset_seconds, 'second')}",
                headers=headers | {"Retry-After": str(reset_seconds)},
            )
        return headers
