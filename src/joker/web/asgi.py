"""The application for servers that start it by name, in as many processes as they like.

NGINX Unit, uvicorn and granian call `open_app` in each process; ``deploy/`` says how.
`joker.web.server` is the server that comes with the package.
"""

from __future__ import annotations

from fastapi import FastAPI

from joker.core.errors import ConfigError
from joker.core.logs import log_as_json_lines
from joker.settings import open_queue, read_settings
from joker.web.app import create_app


def open_app() -> FastAPI:
    """Return the application as the environment sets it up; it logs as JSON lines.

    Raises:
        ConfigError: If a setting cannot be used, or there is no broker: a job must be known
            to whichever process is asked for it.
    """
    settings = read_settings()
    if settings.broker is None:
        raise ConfigError(
            "several processes share their jobs through Redis: set JOKER_BROKER, "
            "such as redis://localhost:6379/0"
        )
    log_as_json_lines()
    return create_app(open_queue(settings), settings)
