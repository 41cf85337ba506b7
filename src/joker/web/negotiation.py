"""Content negotiation (RFC 9110, section 12.5.1): chooses a media type and renders jokes in it."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from joker.generation.request import GenerationRequest
from joker.web.html import render_page
from joker.web.schemas import LinkedJoke, PublishedJoke

TEXT = "text/plain"
JSON = "application/json"
HTML = "text/html"
EVENTS = "text/event-stream"


def choose_media_type(accept: str, offers: Sequence[str]) -> str:
    """Return the offer that an ``Accept`` header rates highest; the first where several tie.

    A header that accepts none of them is ignored, as the standard allows.
    """
    ranges = [_read_range(part) for part in accept.split(",") if part.strip()]
    return max(offers, key=lambda offer: _quality(offer, ranges))


def prefers_html(request: Request) -> bool:
    """Return whether the client prefers HTML to JSON, as browsers do."""
    return choose_media_type(request.headers.get("accept", ""), (JSON, HTML)) == HTML


def render_jokes(
    request: Request,
    jokes: Sequence[LinkedJoke | PublishedJoke],
    body: BaseModel,
    offers: Sequence[str],
    *,
    asked: GenerationRequest | None = None,
    message: str = "",
) -> Response:
    """Return jokes as text, JSON or the page, whichever ``Accept`` asks for.

    Args:
        request: The request.
        jokes: The jokes.
        body: The JSON response.
        offers: The media types, the default first.
        asked: What the page's form shows as chosen.
        message: Shown above them on the page.
    """
    wanted = choose_media_type(request.headers.get("accept", ""), offers)
    response: Response
    if wanted == HTML:
        response = render_page(request, asked, jokes, message)
    elif wanted == JSON:
        response = Response(body.model_dump_json(), media_type=JSON)
    else:
        texts = (f"{joke.question}\n{joke.answer}\n" for joke in jokes)
        response = PlainTextResponse("\n".join(texts))
    response.headers["Vary"] = "Accept"
    return response


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
    """Return the quality value of the most specific range that matches."""
    wanted = dict(ranges)
    for media_range in (offer, offer.partition("/")[0] + "/*", "*/*"):
        if media_range in wanted:
            return wanted[media_range]
    return 0.0
