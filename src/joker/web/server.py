"""The server: uvicorn in this process, logging as JSON lines, stopping without a fuss."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from joker.core.errors import ConfigError
from joker.core.logs import log_as_json_lines
from joker.jobs.queue import JobQueue
from joker.settings import Settings
from joker.store import Store
from joker.web.app import create_app
from joker.web.connection import Connection

_GRACE_SECONDS = 5


def bind(host: str, port: int) -> socket.socket:
    """Reserve an address; nobody is answered before a `Server` runs.

    Raises:
        ConfigError: If the port is taken, or the address is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(
            f"there is no address {host!r}; choose another with --host or JOKER_HOST"
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
    """Answers requests for jokes until it is told to stop.

    The queue is closed before connections are, so that streams end and nobody is waited for.

    Args:
        queue: Where requests for jokes wait; closed in the end.
        store: Where jokes and votes are kept; closed, too.
        settings: Limits, keys and origins.
        listener: An address from `bind`.
        announce: Called with the address to open, once it is answered.
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
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._queue = queue
        self._listener = listener
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say where."""
        await super().startup(sockets)
        if self.started:
            self._announce(_address_of(self._listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Revoke what waits in this process, then let requests end."""
        await self._queue.close()
        await super().shutdown(sockets)

    def run_until_stopped(self) -> None:
        """Log as JSON lines and answer until a signal such as Ctrl-C comes."""
        log_as_json_lines()
        with suppress(KeyboardInterrupt):
            self.run(sockets=[self._listener])


def _address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
