"""What arrives in the streams of many jobs, heard over one connection.

A blocking read takes a connection for itself. Were there one for each client that waits, a
server would run out of them; so one task reads all streams and wakes those who wait for theirs.
`joker.jobs.celery_redis` is the one caller.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

# A stream that somebody begins to wait for is heard after so long at most, then at once.
_BLOCK_SECONDS = 0.05
_PAUSE_SECONDS = 0.5

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Stream:
    """A stream that is listened to: the last entry heard of, and who waits."""

    seen: str
    waiting: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Arrivals:
    """Listens to streams for those who wait."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._streams: dict[str, _Stream] = {}
        self._task: asyncio.Task[None] | None = None

    async def wait(self, key: str, seen: str, timeout_seconds: float) -> None:
        """Return once a stream may hold something behind an entry, or the time is up."""
        stream = self._streams.setdefault(key, _Stream(seen))
        if _order(seen) < _order(stream.seen):
            stream.seen = seen
        stream.waiting += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen())
        try:
            async with asyncio.timeout(timeout_seconds):
                await stream.news.wait()
        except TimeoutError:
            pass
        finally:
            stream.waiting -= 1
            if not stream.waiting and self._streams.get(key) is stream:
                del self._streams[key]

    async def close(self) -> None:
        """Listen no more."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        """Read all streams until nobody waits for any."""
        while self._streams:
            positions: dict[Any, Any] = {key: one.seen for key, one in self._streams.items()}
            try:
                found: Any = await self._redis.xread(
                    positions, count=1, block=int(_BLOCK_SECONDS * 1000)
                )
            except (RedisError, OSError) as error:
                # Those who wait meet it, too, when their time is up and they look for themselves.
                _log.warning("streams were not read: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            for key, _ in found or ():
                # Whoever waits reads on from where it is, and comes back for what follows.
                stream = self._streams.pop(key, None)
                if stream:
                    stream.news.set()


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
