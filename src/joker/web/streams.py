"""Server-sent events, for routes that also have other responses, unlike FastAPI's own streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from anyio import CancelScope
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT
from starlette.types import Receive, Scope, Send

EVENT_STREAM = "text/event-stream"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # like FastAPI's streams
_KEEP_ALIVE_SECONDS = 15.0


class EventStream(StreamingResponse):
    """A response of encoded server-sent events, until they end or the client disconnects.

    Args:
        events: The events; closed at the end.
        on_close: Called at the end, before ``events`` is closed. If the client has disconnected, it
            must make ``events`` end. Cancellation is not enough: in Python 3.11, asyncio.wait_for,
            which redis-py uses, loses it if the awaited result arrives at the same time.
        headers: Additional headers.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        on_close: Callable[[], Awaitable[None]],
        **headers: str,
    ) -> None:
        super().__init__(self._keep_alive(), media_type=EVENT_STREAM, headers=_HEADERS | headers)
        self._events = events
        self._on_close = on_close
        self._next_event: asyncio.Task[bytes | None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await self._on_close()
                if self._next_event:
                    self._next_event.cancel()
                    await asyncio.wait({self._next_event})
                await self._events.aclose()

    async def _keep_alive(self) -> AsyncGenerator[bytes]:
        """Yield events, and comments in between, because proxies close idle connections."""
        while True:
            self._next_event = asyncio.ensure_future(anext(self._events, None))
            while not (await asyncio.wait({self._next_event}, timeout=_KEEP_ALIVE_SECONDS))[0]:
                yield KEEPALIVE_COMMENT
            event = self._next_event.result()
            if event is None:
                return
            yield event
