"""Connections to the broker's Redis, by its own address or by Sentinels that know the primary.

    redis://user:password@host:6379/0        rediss:// over TLS
    sentinel://user:password@host:26379,host:26379/0?master=mymaster&sentinel_password=secret

The user and password are Redis's. After a failover, connections reconnect to the new primary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import BlockingConnectionPool

# A connection that is silent for this long is dead.
_SOCKET_SECONDS = 5.0
TIMEOUTS = {"socket_connect_timeout": _SOCKET_SECONDS, "socket_timeout": _SOCKET_SECONDS}


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The Sentinels of a URL.

    Attributes:
        hosts: Their names and ports.
        master: The name by which they know the primary.
        options: How to connect to them.
        redis: How to connect to the primary: database, user and password.
    """

    hosts: tuple[tuple[str, int], ...]
    master: str
    options: dict[str, Any] = field(repr=False)
    redis: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, url: str) -> Sentinels | None:
        """Return a URL's Sentinels; None if it is the URL of a Redis.

        Raises:
            ValueError: If it cannot be used.
        """
        parts = urlsplit(url)
        if parts.scheme != "sentinel":
            return None
        query = parse_qs(parts.query)
        master = query.get("master", [""])[0]
        if not master:
            raise ValueError("must name the primary, as in sentinel://host:26379/0?master=mymaster")
        user, _, addresses = parts.netloc.rpartition("@")
        name, _, password = user.partition(":")
        named = [urlsplit(f"//{address}") for address in addresses.split(",")]
        try:
            hosts = tuple((each.hostname or "localhost", each.port or 26379) for each in named)
            database = int(parts.path.strip("/") or 0)
        except ValueError:
            raise ValueError("must have ports from 0 to 65535 and a number as database") from None
        return cls(
            hosts,
            master,
            TIMEOUTS | {"password": query.get("sentinel_password", [None])[0]},
            {
                "db": database,
                "username": unquote(name) or None,
                "password": unquote(password) or None,
            },
        )


def connect(url: str, **options: Any) -> Redis:
    """Return a client for one process's threads.

    Args:
        url: The broker's URL.
        options: What `redis.Redis` takes.
    """
    from redis import Redis
    from redis.sentinel import Sentinel

    sentinels = Sentinels.read(url)
    if sentinels is None:
        return Redis.from_url(url, **options)
    manager = Sentinel(sentinels.hosts, sentinel_kwargs=sentinels.options)  # type: ignore[no-untyped-call]
    primary: Redis = manager.master_for(sentinels.master, **sentinels.redis, **options)  # type: ignore[no-untyped-call]
    return primary


def open_pool(
    url: str, *, max_connections: int, timeout: float, **options: Any
) -> BlockingConnectionPool:
    """Return a pool of connections for asyncio.

    Args:
        url: The broker's URL.
        max_connections: Calls beyond this many wait their turn.
        timeout: How many seconds they wait.
        options: What `redis.asyncio.Connection` takes.
    """
    from redis.asyncio import BlockingConnectionPool
    from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

    options |= {"max_connections": max_connections, "timeout": timeout}
    sentinels = Sentinels.read(url)
    if sentinels is None:
        return BlockingConnectionPool.from_url(url, **options)

    class PrimaryPool(SentinelConnectionPool, BlockingConnectionPool):
        """A pool that asks the Sentinels for the address of the primary."""

        async def disconnect(self, inuse_connections: bool = True) -> None:
            await super().disconnect(inuse_connections)
            if inuse_connections:
                await self.sentinel_manager.aclose()

    manager = Sentinel(sentinels.hosts, sentinel_kwargs=sentinels.options)  # type: ignore[no-untyped-call]
    return PrimaryPool(sentinels.master, manager, **sentinels.redis, **options)  # type: ignore[no-untyped-call]


def celery_address(url: str) -> tuple[str, dict[str, Any]]:
    """Return the broker's URL for Celery, and the transport options that belong to it."""
    sentinels = Sentinels.read(url)
    if sentinels is None:
        return url, {}
    name, password = (quote(sentinels.redis[key] or "", "") for key in ("username", "password"))
    user = f"{name}:{password}@" if password else ""
    urls = (
        f"sentinel://{user}{f'[{host}]' if ':' in host else host}:{port}/{sentinels.redis['db']}"
        for host, port in sentinels.hosts
    )
    options = {"master_name": sentinels.master, "sentinel_kwargs": sentinels.options}
    return ";".join(urls), options


def address_of(url: str) -> str:
    """Return the address in a URL, without its user and password."""
    parts = urlsplit(url)
    if parts.scheme == "sentinel":
        return parts.netloc.rpartition("@")[2]
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
