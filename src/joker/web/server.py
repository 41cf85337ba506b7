"""uvicorn as ``joker serve`` runs it: with JSON logs, a graceful shutdown and limits.

uvicorn does not limit how long clients take to send headers or to read a response, nor, with
httptools, the size of headers. `Connection` does, in the images, too
(``uvicorn --http joker.web.server:Connection``). `joker.web.middleware` limits bodies.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from joker.core.errors import ConfigError
from joker.core.logs import configure_logging
from joker.jobs.queue import JobQueue
from joker.settings import Settings
from joker.store import Store
from joker.web.app import create_app

# All before Docker kills a container, which is after 10 seconds.
_FINISH_SECONDS = 5
_ANSWER_SECONDS = 3
_EXIT_SECONDS = 9.0

_HEAD_SECONDS = 10.0
_HEAD_BYTES = 65_536
_UNREAD_SECONDS = 60.0

_log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, for a `Server`.

    Raises:
        ConfigError: If the port is taken, or this machine does not have the address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(
            f"unknown address {host!r}; choose another with --host or JOKER_HOST"
        ) from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {(error.strerror or str(error)).lower()}; "
            "choose another with --port (JOKER_PORT) or --host (JOKER_HOST)"
        ) from error
    return listener


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


class Server(uvicorn.Server):
    """Serves the application until a signal.

    Open requests then have some seconds to finish. Those that still wait for a joke get a response
    that says how to get it. Closing thousands of streams can take too long, so the process exits
    at last even if some are still open.

    Args:
        queue: Runs the jobs; closed at shutdown.
        store: Stores jokes and votes; closed at shutdown.
        settings: Limits, keys and origins.
        listener: A socket from `bind`.
        announce: Called with the server's URL when it accepts connections.
    """

    def __init__(
        self,
        queue: JobQueue,
        store: Store,
        settings: Settings,
        listener: socket.socket,
        announce: Callable[[str], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(queue, store, settings),
                http=Connection,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_FINISH_SECONDS + _ANSWER_SECONDS,
            )
        )
        self._queue = queue
        self._listener = listener
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections and announce the URL."""
        await super().startup(sockets)
        if self.started:
            self._announce(_url_of(self._listener))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down, and exit after `_EXIT_SECONDS` at the latest."""
        if not self.should_exit:
            # A thread, because the event loop may be blocked for seconds.
            timer = threading.Timer(_EXIT_SECONDS, _exit, [sig])
            timer.daemon = True
            timer.start()
            # Collections would slow the shutdown down: each scans all objects of all streams.
            gc.disable()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish requests, and close the application."""
        stop_queue = asyncio.create_task(self._stop_queue())
        await super().shutdown(sockets)
        stop_queue.cancel()

    async def _stop_queue(self) -> None:
        await asyncio.sleep(_FINISH_SECONDS)
        await self._queue.stop()

    def run_until_stopped(self) -> None:
        """Serve until a signal such as Ctrl-C; log JSON lines."""
        configure_logging()
        with suppress(KeyboardInterrupt):
            self.run(sockets=[self._listener])


def _exit(signal_number: int) -> None:
    _log.warning("ended with requests still open")
    os._exit(128 + signal_number)


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
