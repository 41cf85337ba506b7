"""Renders the page, serves its static files, and negotiates media types (RFC 9110, section 12.5.1).

Templates escape everything, so a model's output is always shown as text. The URLs of static files
contain a content hash, so that browsers can cache them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from pydantic_core import to_json
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from joker.compose import model_name
from joker.generation.request import GenerationRequest
from joker.settings import Settings
from joker.web.schemas import (
    REFUSED_TYPE,
    LinkedJoke,
    Problem,
    PublishedJoke,
    PublishedJokes,
    Task,
)

TEXT = "text/plain"
JSON = "application/json"
HTML = "text/html"

# At least two picked jokes of the bundled model fit each start and each topic.
STARTS = ("Why did the", "What did the", "How did the")
TOPICS = (
    *("dogs", "ghosts", "the moon", "chefs", "socks", "detectives"),
    *("pianos", "chickens", "teachers", "kites", "bees", "the beach"),
    *("skeletons", "tennis", "judges", "trees", "honey", "clowns"),
    *("penguins", "money", "artists", "shoes", "pencils", "cowboys"),
    *("birds", "bread", "exams", "submarines", "neighbors", "chess"),
    *("crabs", "cars", "writers", "giraffes", "clocks", "restaurants"),
    *("sheep", "balloons", "bosses", "diamonds", "marriage", "bookworms"),
    *("coffee", "mummies", "robots", "gardeners", "pizza", "elephants"),
    *("bakers", "fridges", "doctors", "candles", "squirrels", "zombies"),
    *("eggs", "pilots", "magnets", "farmers", "guitars", "scissors"),
)
_TOPICS_A_DAY = 3
_AGAIN = {"/jokes/random": "Another random joke"}
_EMPTY_POOL = "The first jokes are being written, but none is ready yet. Ask for one."
# A problem's detail has counts and advice for programs; these stand in for its advice.
_FOR_PROGRAMS = re.compile(r" \(rejected drafts|; ")
_NOT_FOUND_ADVICE = "try one of the links below, or ask for a joke"
_REFUSED_ADVICE = "try again, perhaps with different words"


class VersionedFiles(StaticFiles):
    """Files that browsers cache for a year if the query is their content hash."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return a file, or 304 if the client has it."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        # During an update, a page of another version may request this file.
        current = scope["query_string"] == _digest(os.fspath(full_path)).encode()
        response.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable" if current else "no-cache"
        )
        return response


# Swagger UI comes with the package fastapi-offline.
_DOCS = VersionedFiles(packages=[("fastapi_offline", "static")])
_PAGE = VersionedFiles(packages=[("joker.web", "page/static")])
STATIC_FILES = [Mount("/static/docs", _DOCS), Mount("/static", _PAGE)]


def static_url(name: str) -> str:
    """Return the URL of a static file such as ``page.js`` or ``docs/swagger-ui.css``."""
    files, path = (_DOCS, name[5:]) if name.startswith("docs/") else (_PAGE, name)
    return f"/static/{name}?{_digest(files.lookup_path(path)[0])}"


@cache
def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def topics_of(day: date) -> tuple[str, ...]:
    """Return the topics that the page suggests on a day; they change daily."""
    first = day.toordinal() * _TOPICS_A_DAY % len(TOPICS)
    return TOPICS[first : first + _TOPICS_A_DAY]


@cache
def load_template(name: str) -> Template:
    """Return a template of the folder ``page``."""
    environment = Environment(
        loader=PackageLoader("joker.web", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static_url
    return environment.get_template(name)


def render_page(
    request: Request,
    joke_request: GenerationRequest | None = None,
    jokes: Sequence[LinkedJoke] = (),
    message: str = "",
    *,
    is_single: bool = False,
    drafted: bool = False,
    eager: bool = False,
    problem: Problem | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """Return the page.

    Args:
        request: The HTTP request.
        joke_request: Values of the form.
        jokes: The jokes to show.
        message: Shown above them.
        is_single: Whether the page shows one stored joke, for which it has a link preview.
        drafted: Whether the jokes are new, so that "Try harder" is offered.
        eager: Whether JavaScript asks for a joke at once, because the page has none.
        problem: The error to show instead of the message.
        status: The HTTP status.
        headers: Additional headers.
    """
    settings: Settings = request.app.state.settings
    if eager:
        message = _EMPTY_POOL  # for browsers without JavaScript
    if problem and joke_request is None:
        # Keep the prompt in the form, so that it can be changed.
        joke_request = GenerationRequest(prompt=request.query_params.get("prompt", ""))
    text = load_template("index.html").render(
        joke_request=joke_request or GenerationRequest(),
        jokes=jokes,
        message=_message_of(problem) if problem else message,
        problem=problem,
        advice=_REFUSED_ADVICE,
        # More drafts help if all were rejected, but not against other problems.
        can_try_harder=problem.type == REFUSED_TYPE and not problem.errors if problem else drafted,
        is_single=is_single,
        eager=eager,
        again=_AGAIN.get(request.url.path, "Another one") if jokes else "Ask for one",
        permanent=is_single and jokes[0].link == request.url.path,
        site=str(request.base_url).rstrip("/"),
        starts=STARTS,
        topics=topics_of(datetime.now(UTC).date()),
        model=model_name(settings),
        drafts=settings.candidates,
        max_jokes=settings.max_count,
        max_characters=settings.max_prompt_characters,
    )
    return HTMLResponse(text, status, headers)


def choose_media_type(accept: str, offers: Sequence[str]) -> str:
    """Return the media type that an ``Accept`` header prefers, the first of several equal ones.

    A header that accepts none of them is ignored, as RFC 9110 allows.
    """
    ranges = [_read_range(part) for part in accept.split(",") if part.strip()]
    return max(offers, key=lambda offer: _quality(offer, ranges))


def prefers_html(request: Request) -> bool:
    """Return whether the client prefers HTML to JSON, as browsers do."""
    return choose_media_type(request.headers.get("accept", ""), (JSON, HTML)) == HTML


def render_jokes(
    request: Request,
    jokes: Sequence[LinkedJoke],
    body: Task | PublishedJoke | PublishedJokes,
    offers: Sequence[str],
    *,
    joke_request: GenerationRequest | None = None,
    message: str = "",
) -> Response:
    """Return jokes as text, JSON or a page, whichever ``Accept`` prefers.

    Args:
        request: The HTTP request.
        jokes: The jokes.
        body: The JSON response.
        offers: The media types, the default first.
        joke_request: Values of the page's form.
        message: Shown above the jokes on the page.
    """
    media_type = choose_media_type(request.headers.get("accept", ""), offers)
    response: Response
    if media_type == HTML:
        response = render_page(
            request,
            joke_request,
            jokes,
            message,
            is_single=isinstance(body, PublishedJoke),
            drafted=isinstance(body, Task) and body.task_id is not None,
        )
    elif media_type == JSON:
        response = Response(to_json(body), media_type=JSON)
    else:
        texts = (f"{joke.question}\n{joke.answer}\n" for joke in jokes)
        response = PlainTextResponse("\n".join(texts))
    response.headers["Vary"] = "Accept"
    return response


def _message_of(problem: Problem) -> str:
    detail = problem.detail
    advice = _REFUSED_ADVICE if problem.type == REFUSED_TYPE else _NOT_FOUND_ADVICE
    if problem.type == REFUSED_TYPE or problem.status == HTTPStatus.NOT_FOUND:
        detail = f"{_FOR_PROGRAMS.split(detail)[0]}; {advice}"
    return f"{detail[0].upper()}{detail[1:].rstrip('.')}."


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
    qualities = dict(ranges)
    for media_range in (offer, offer.partition("/")[0] + "/*", "*/*"):
        if media_range in qualities:
            return qualities[media_range]
    return 0.0
