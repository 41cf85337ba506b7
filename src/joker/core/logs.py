"""Logs on standard error, the same for servers and workers: JSON, or plain lines on a terminal."""

from __future__ import annotations

import json
import logging.config
import sys
from asyncio import CancelledError
from datetime import UTC, datetime
from typing import Any

from joker.core.tracing import trace_id


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON, with the fields from ``extra={"fields": …}``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields_of(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


class PlainLines(logging.Formatter):
    """Writes a record for people: time, level, message, and the fields as ``name=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line, without a traceback."""
        fields = _fields_of(record).items()
        # Quoted, because clients could otherwise send escape sequences to the terminal.
        shown = [f"{name}={json.dumps(value, default=str)}" for name, value in fields]
        return " ".join([super().formatMessage(record), *shown])


class NoCancellations(logging.Filter):
    """Drops uvicorn's errors about requests cancelled because the server is stopping."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written."""
        cancelled = record.exc_info and isinstance(record.exc_info[1], CancelledError)
        return not (cancelled and record.name.startswith("uvicorn"))


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a record, and the id of the trace that it is part of."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    trace = trace_id()
    return fields if trace is None else {**fields, "trace_id": trace}


def choose_formatter() -> logging.Formatter:
    """Return the formatter for standard error: plain lines on a terminal, JSON elsewhere.

    ``deploy/uvicorn-logging.json`` uses it too.
    """
    return PlainLines() if sys.stderr.isatty() else JsonLines()


_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"default": {"()": choose_formatter}},
    "filters": {"no_cancellations": {"()": NoCancellations}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "default",
            "filters": ["no_cancellations"],
        }
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "joker": {"level": "INFO"},
        # uvicorn's command line gives them their own handlers; joker.web logs requests itself.
        "uvicorn": {"handlers": [], "propagate": True},
        "uvicorn.access": {"handlers": [], "propagate": False},
    },
}


def configure_logging() -> None:
    """Log this package's messages, and the warnings of others, to standard error."""
    logging.config.dictConfig(_LOGGING)
    logging.captureWarnings(True)
