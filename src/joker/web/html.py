"""Renders jokes as ``Accept`` asks (RFC 9110, section 12.5.1), and the page, also for errors.

Templates escape everything, so a model's output is always shown as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from pydantic import BaseModel

from joker.compose import model_name
from joker.generation.request import GenerationRequest
from joker.settings import Settings
from joker.web.schemas import REFUSED_TYPE, LinkedJoke, Problem, PublishedJoke, Task
from joker.web.static import locate

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
_FIRST_JOKES = "The first jokes are being written, and none is ready yet: ask for one."
# What the page advises; the details' own advice, and the counts before it, are for programs.
_FOR_PROGRAMS = re.compile(r" \(rejected drafts|; ")
_LOST_ADVICE = "try one of the links below, or ask for a joke"
_REFUSED_ADVICE = "ask again, perhaps with other words"


def topics_of(day: date) -> tuple[str, ...]:
    """Return the topics that the page suggests on a day, other ones than on the day before."""
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
    environment.globals["static"] = locate
    return environment.get_template(name)


def render_page(
    request: Request,
    asked: GenerationRequest | None = None,
    jokes: Sequence[LinkedJoke | PublishedJoke] = (),
    message: str = "",
    *,
    is_one: bool = False,
    drafted: bool = False,
    eager: bool = False,
    problem: Problem | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """Return the page.

    Args:
        request: The request.
        asked: What the form shows as chosen.
        jokes: Jokes that were told.
        message: Shown above them.
        is_one: Whether the page is that of one stored joke, which link previews show.
        drafted: Whether the model has drafted jokes just now, and may try harder.
        eager: Whether the page, without a joke, asks for one by itself.
        problem: What went wrong; the page has advice of its own.
        status: The HTTP status.
        headers: Further headers.
    """
    settings: Settings = request.app.state.settings
    if eager:
        message = _FIRST_JOKES  # read where there is no JavaScript; the page replaces it
    if problem and asked is None:
        # What was asked for in vain can be asked for again.
        asked = GenerationRequest(prompt=request.query_params.get("prompt", ""))
    text = load_template("index.html").render(
        asked=asked or GenerationRequest(),
        jokes=jokes,
        message=_say(problem) if problem else message,
        problem=problem,
        advice=_REFUSED_ADVICE,
        # More drafts help against nothing else.
        hard=problem.type == REFUSED_TYPE and not problem.errors if problem else drafted,
        linked=is_one,
        drafted=drafted,
        eager=eager,
        again=_AGAIN.get(request.url.path, "Another one") if jokes else "Ask for one",
        permanent=is_one and jokes[0].link == request.url.path,
        site=str(request.base_url).rstrip("/"),
        starts=STARTS,
        topics=topics_of(datetime.now(UTC).date()),
        model=model_name(settings),
        drafts=settings.candidates,
        most_jokes=settings.max_count,
        most_characters=settings.max_prompt_characters,
    )
    return HTMLResponse(text, status, headers)


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
        is_one = isinstance(body, PublishedJoke)
        drafted = isinstance(body, Task) and body.task_id is not None
        response = render_page(request, asked, jokes, message, is_one=is_one, drafted=drafted)
    elif wanted == JSON:
        response = Response(body.model_dump_json(), media_type=JSON)
    else:
        texts = (f"{joke.question}\n{joke.answer}\n" for joke in jokes)
        response = PlainTextResponse("\n".join(texts))
    response.headers["Vary"] = "Accept"
    return response


def _say(problem: Problem) -> str:
    detail = problem.detail
    advice = _REFUSED_ADVICE if problem.type == REFUSED_TYPE else _LOST_ADVICE
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
    wanted = dict(ranges)
    for media_range in (offer, offer.partition("/")[0] + "/*", "*/*"):
        if media_range in wanted:
            return wanted[media_range]
    return 0.0
