"""The application factory for ASGI servers such as NGINX Unit, uvicorn and gunicorn.

They call `open_app` in each process; ``deploy/`` has their configurations. ``joker serve`` uses
`joker.web.server` instead.
"""

from __future__ import annotations

import logging

from fastapi import FastAPI

from joker.compose import open_queue, open_store
from joker.core.errors import ConfigError, JokerError
from joker.core.logs import configure_logging
from joker.settings import load_settings
from joker.web.app import create_app

# uvicorn and gunicorn stop at this exit code; at any other they restart the process forever.
_FAILED_TO_START = 3

_log = logging.getLogger(__name__)


def open_app() -> FastAPI:
    """Return the application, configured by the environment; it logs JSON lines.

    Raises:
        SystemExit: If a setting is invalid, or there is no broker. The reason is logged, because
            NGINX Unit does not show exceptions of a factory.
    """
    configure_logging()
    try:
        return _open_app()
    except JokerError as error:
        _log.critical("%s", error)
    except Exception:
        _log.critical("the application cannot start", exc_info=True)
    raise SystemExit(_FAILED_TO_START)


def _open_app() -> FastAPI:
    settings = load_settings()
    if settings.broker is None:
        raise ConfigError(
            "several processes share their jobs through Redis: set JOKER_BROKER, "
            "such as redis://localhost:6379/0"
        )
    return create_app(open_queue(settings), open_store(settings), settings)
