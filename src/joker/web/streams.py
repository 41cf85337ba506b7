"""Responses that are streams of server-sent events, for routes that answer in other forms, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from anyio import CancelScope
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.types import Receive, Scope, Send

EVENTS = "text/event-stream"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # as FastAPI's streams
_QUIET_SECONDS = 15.0


class EventStream(StreamingResponse):
    """A stream of encoded events, which ends with them or when the client disconnects.

    Args:
        events: The events; they are closed at the end.
        leave: Called at the end, before that. If the client has disconnected, it must end the wait
            for the next event: a cancellation alone may be lost, since asyncio.wait_for, by which
            redis-py sends, drops it in Python 3.11 if what it waits for is done at that moment.
        headers: Further ones of the response.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        leave: Callable[[], Awaitable[None]],
        **headers: str,
    ) -> None:
        super().__init__(self._keep_alive(), media_type=EVENTS, headers=_HEADERS | headers)
        self._events = events
        self._leave = leave
        self._coming: asyncio.Task[bytes | None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await self._leave()
                if self._coming:
                    self._coming.cancel()
                    await asyncio.wait({self._coming})
                await self._events.aclose()

    async def _keep_alive(self) -> AsyncGenerator[bytes]:
        """Yield events, and a comment after each silence: proxies close silent connections."""
        while True:
            self._coming = asyncio.ensure_future(anext(self._events, None))
            while not (await asyncio.wait({self._coming}, timeout=_QUIET_SECONDS))[0]:
                yield KEEPALIVE_COMMENT
            event = self._coming.result()
            if event is None:
                return
            yield event
