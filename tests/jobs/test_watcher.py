from __future__ import annotations

import asyncio
from typing import Any

import pytest

from joker.core.errors import UnknownJobError
from joker.jobs.watcher import JobWatcher


class DeafChannel:
    """A channel on which the first cancellation is lost."""

    def __init__(self) -> None:
        self.messages = [{"type": "subscribe"}]
        self.lost = False

    async def __aenter__(self) -> DeafChannel:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def subscribe(self, name: str) -> None: ...

    async def ping(self) -> None: ...

    async def get_message(self, timeout: float) -> dict[str, str] | None:
        if self.messages:
            return self.messages.pop()
        try:
            await asyncio.sleep(timeout)
        except asyncio.CancelledError:
            if self.lost:
                raise
            self.lost = True
        return {"type": "pong"}


class DeafRedis:
    def __init__(self) -> None:
        self.pubsub = DeafChannel

    async def aclose(self) -> None: ...


async def read(job_id: str, drafts: bool) -> Any:
    raise UnknownJobError(f"there is no job {job_id} ({drafts})")


def test_a_lost_cancellation_does_not_keep_a_server_from_stopping() -> None:
    async def follow_and_close() -> None:
        redis: Any = DeafRedis()
        watcher = JobWatcher(redis, "server", read)
        with pytest.raises(UnknownJobError):
            await anext(watcher.follow("none"))
        await asyncio.wait_for(watcher.close(), 60)

    asyncio.run(follow_and_close())
