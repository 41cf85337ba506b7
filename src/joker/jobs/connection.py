"""Connections to the broker's Redis, directly or through Redis Sentinel.

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

TIMEOUTS = {"socket_connect_timeout": 5.0, "socket_timeout": 5.0}


@dataclass(frozen=True, slots=True)
class Sentinels:
    """A parsed ``sentinel://`` URL.

    Attributes:
        hosts: The Sentinels' host names and ports.
        master: The name by which they know the primary.
        sentinel_options: Connection options for the Sentinels.
        primary_options: Connection options for the primary: database, user and password.
    """

    hosts: tuple[tuple[str, int], ...]
    master: str
    sentinel_options: dict[str, Any] = field(repr=False)
    primary_options: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Sentinels | None:
        """Parse a broker URL; return None if it has another scheme.

        Raises:
            ValueError: If a ``sentinel://`` URL is invalid.
        """
        parts = urlsplit(url)
        if parts.scheme != "sentinel":
            return None
        query = parse_qs(parts.query)
        master = query.get("master", [""])[0]
        if not master:
            raise ValueError("must name the primary, as in sentinel://host:26379/0?master=mymaster")
        userinfo, _, netlocs = parts.netloc.rpartition("@")
        user, _, password = userinfo.partition(":")
        addresses = [urlsplit(f"//{netloc}") for netloc in netlocs.split(",")]
        try:
            hosts = tuple((a.hostname or "localhost", a.port or 26379) for a in addresses)
            database = int(parts.path.strip("/") or 0)
        except ValueError:
            raise ValueError("must have ports from 0 to 65535 and a number as database") from None
        return cls(
            hosts,
            master,
            TIMEOUTS | {"password": query.get("sentinel_password", [None])[0]},
            {
                "db": database,
                "username": unquote(user) or None,
                "password": unquote(password) or None,
            },
        )


def connect(url: str, **options: Any) -> Redis:
    """Return a thread-safe client.

    Args:
        url: The broker's URL.
        options: Options of `redis.Redis`.
    """
    from redis import Redis
    from redis.sentinel import Sentinel

    sentinels = Sentinels.parse(url)
    if sentinels is None:
        return Redis.from_url(url, **options)
    manager = Sentinel(sentinels.hosts, sentinel_kwargs=sentinels.sentinel_options)  # type: ignore[no-untyped-call]
    primary: Redis = manager.master_for(sentinels.master, **sentinels.primary_options, **options)  # type: ignore[no-untyped-call]
    return primary


def open_pool(
    url: str, *, max_connections: int, timeout: float, **options: Any
) -> BlockingConnectionPool:
    """Return a pool of connections for asyncio.

    Args:
        url: The broker's URL.
        max_connections: Maximum number of connections; further calls wait for one.
        timeout: Seconds after which such a call fails.
        options: Options of `redis.asyncio.Connection`.
    """
    from redis.asyncio import BlockingConnectionPool
    from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

    options |= {"max_connections": max_connections, "timeout": timeout}
    sentinels = Sentinels.parse(url)
    if sentinels is None:
        return BlockingConnectionPool.from_url(url, **options)

    class PrimaryPool(SentinelConnectionPool, BlockingConnectionPool):
        """A pool that asks the Sentinels for the address of the primary."""

        async def disconnect(self, inuse_connections: bool = True) -> None:
            await super().disconnect(inuse_connections)
            if inuse_connections:
                await self.sentinel_manager.aclose()

    manager = Sentinel(sentinels.hosts, sentinel_kwargs=sentinels.sentinel_options)  # type: ignore[no-untyped-call]
    return PrimaryPool(sentinels.master, manager, **sentinels.primary_options, **options)  # type: ignore[no-untyped-call]


def celery_broker(url: str) -> tuple[str, dict[str, Any]]:
    """Return the broker URL and the transport options that Celery needs."""
    sentinels = Sentinels.parse(url)
    if sentinels is None:
        return url, {}
    primary = sentinels.primary_options
    user, password = (quote(primary[key] or "", "") for key in ("username", "password"))
    userinfo = f"{user}:{password}@" if password else ""
    urls = (
        f"sentinel://{userinfo}{f'[{host}]' if ':' in host else host}:{port}/{primary['db']}"
        for host, port in sentinels.hosts
    )
    options = {"master_name": sentinels.master, "sentinel_kwargs": sentinels.sentinel_options}
    return ";".join(urls), options


def address_of(url: str) -> str:
    """Return the host and port of a URL, without user and password."""
    parts = urlsplit(url)
    if parts.scheme == "sentinel":
        return parts.netloc.rpartition("@")[2]
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
