"""Responses that are streams of server-sent events, for routes that answer in other forms, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from anyio import CancelScope
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT

EVENTS = "text/event-stream"
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # as FastAPI's streams
_QUIET_SECONDS = 15.0


def stream_events(events: AsyncGenerator[bytes], **headers: str) -> StreamingResponse:
    """Return encoded events as a response; if the client disconnects, they are closed."""
    return StreamingResponse(_keep_alive(events), media_type=EVENTS, headers=_HEADERS | headers)


async def _keep_alive(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Yield events, and a comment after each silence, because proxies close silent connections."""
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            arrived, _ = await asyncio.wait({coming}, timeout=_QUIET_SECONDS)
            event = coming.result() if arrived else KEEPALIVE_COMMENT
            if event is None:
                return
            yield event
            if arrived:
                coming = asyncio.ensure_future(anext(events, None))
    finally:
        coming.cancel()
        with CancelScope(shield=True):
            await asyncio.wait({coming})
            await events.aclose()
