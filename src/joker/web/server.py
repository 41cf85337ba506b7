"""The server of `joker serve`: uvicorn in this process, with JSON logs and a clean stop."""

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

import uvicorn

from joker.core.errors import ConfigError
from joker.core.logs import configure_logging
from joker.jobs.queue import JobQueue
from joker.settings import Settings
from joker.store import Store
from joker.web.app import create_app
from joker.web.connection import Connection

# Together less than the 10 seconds after which Docker kills a container.
_FINISH_SECONDS = 5
_ANSWER_SECONDS = 3
_LAST_SECONDS = 9.0

_log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """Reserve an address; a `Server` accepts connections there later.

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


class Server(uvicorn.Server):
    """Serves the application until it is stopped.

    A stop lets open requests finish for some seconds. What still waits is then told to ask again,
    or where its job goes on. Ending thousands of streams takes longer than anybody waits for a
    process to end, so it ends before them.

    Args:
        queue: Where jobs wait; closed in the end.
        store: Where jokes and votes are stored; closed as well.
        settings: Limits, keys and origins.
        listener: An address from `bind`.
        announce: Called with the address to open, once the server accepts connections.
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
        """Accept connections and announce the address."""
        await super().startup(sockets)
        if self.started:
            self._announce(_address_of(self._listener))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, and see that the process ends."""
        if not self.should_exit:
            # A thread, because the event loop may be busy with one turn for seconds.
            last = threading.Timer(_LAST_SECONDS, _end_process, [sig])
            last.daemon = True
            last.start()
            # It would look through all objects of all streams, again and again.
            gc.disable()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish requests, and close the application."""
        ending = asyncio.create_task(self._end_waits())
        await super().shutdown(sockets)
        ending.cancel()

    async def _end_waits(self) -> None:
        await asyncio.sleep(_FINISH_SECONDS)
        await self._queue.stop()

    def run_until_stopped(self) -> None:
        """Log JSON lines and serve until a signal such as Ctrl-C."""
        configure_logging()
        with suppress(KeyboardInterrupt):
            self.run(sockets=[self._listener])


def _end_process(number: int) -> None:
    _log.warning("ended with requests still open")
    os._exit(128 + number)


def _address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
