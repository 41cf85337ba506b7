"""A uvicorn protocol with time and size limits against hostile clients.

uvicorn does not limit how long clients take to send headers or to read a response, nor, with
httptools, the size of headers. ``joker serve`` and the images use this protocol
(``uvicorn --http joker.web.connection:Connection``). `joker.web.middleware` limits bodies.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_HEAD_SECONDS = 10.0
_HEAD_BYTES = 65_536
_UNREAD_SECONDS = 60.0


class Connection(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """Closes if headers take too long or are too large, or if the client does not read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer for the first request."""
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop(self._head_timer)
        self._stop(self._unread_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive part of a request."""
        if self._awaits_request():
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._start_head_timer()
        super().data_received(data)
        if not self._awaits_request():
            self._stop(self._head_timer)
            self._head_timer = None
            self._head_bytes = 0
        elif self._head_bytes > _HEAD_BYTES and not self.transport.is_closing():
            if self.cycle is None:
                self.send_400_response("Request headers are too large.")
            else:
                # This may be the rest of a rejected body, which has had its response.
                self.transport.close()

    def pause_writing(self) -> None:
        """Start the timer: the client must read."""
        super().pause_writing()
        self._stop(self._unread_timer)
        self._unread_timer = self.loop.call_later(_UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer: the client has read."""
        self._stop(self._unread_timer)
        super().resume_writing()

    def _awaits_request(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
