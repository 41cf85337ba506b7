"""Content negotiation (RFC 9110, section 12.5.1): which of our media types a client wants."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

TEXT = "text/plain"
JSON = "application/json"
HTML = "text/html"


def choose_media_type(accept: str, offers: Sequence[str]) -> str:
    """Return the offer that an ``Accept`` header rates highest; the first where several tie.

    A header that accepts none of them is disregarded, as the standard allows.
    """
    ranges = [_read_range(part) for part in accept.split(",") if part.strip()]
    return max(offers, key=lambda offer: _quality(offer, ranges))


def prefers_html(request: Request) -> bool:
    """Say whether a browser shows the answer to a person."""
    return choose_media_type(request.headers.get("accept", ""), (JSON, HTML)) == HTML


def _read_range(part: str) -> tuple[str, float]:
    media_range, *parameters = (item.strip().lower() for item in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return media_range, float(parameter[2:])
            except ValueError:
                return media_range, 0.0
    return media_range, 1.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return how much the most specific range that fits wants the offer."""
    wanted = dict(ranges)
    for media_range in (offer, offer.partition("/")[0] + "/*", "*/*"):
        if media_range in wanted:
            return wanted[media_range]
    return 0.0
