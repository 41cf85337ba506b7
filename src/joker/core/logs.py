"""Logs as JSON lines on standard error, the same for servers and workers."""

from __future__ import annotations

import json
import logging.config
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON, with what ``extra={"fields": …}`` gave it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"lines": {"()": JsonLines}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"joker": {"level": "INFO"}},
}


def log_as_json_lines() -> None:
    """Write what this package does, and the warnings of others, to standard error."""
    logging.config.dictConfig(_LOGGING)
    logging.captureWarnings(True)
