"""``/`` and ``/docs``: the pages; ``/`` and ``/slack``: jokes for clients of icanhazdadjoke."""

from __future__ import annotations

import html
from typing import Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from pydantic import BaseModel, Field

from joker.web.dependencies import ArchiveDep, SettingsDep, SubmissionDep, require_key
from joker.web.errors import GENERATION_RESPONSES, PROBLEM_RESPONSES
from joker.web.html import HTML, JSON, TEXT, choose_media_type, load_template, render_page
from joker.web.limits import identify_client
from joker.web.middleware import is_head
from joker.web.schemas import JokeParameters, LinkedJoke, PublishedJoke
from joker.web.submission import Submission

_OFFERS = (HTML, JSON, TEXT)
_TERMINAL_OFFERS = (TEXT, HTML, JSON)
_VARY = "Accept, User-Agent"

router = APIRouter()


class DadJoke(BaseModel):
    """A joke in icanhazdadjoke's format."""

    id: str | None = Field(description="The joke's id at `/jokes/{id}`.")
    joke: str = Field(examples=["Why did the kettle blush? It saw the teapot's bare spout."])
    status: Literal[200] = 200


class SlackAttachment(BaseModel):
    """A joke as an attachment of a Slack message."""

    fallback: str
    footer: str
    text: str


class SlackMessage(BaseModel):
    """A joke as a Slack message."""

    response_type: Literal["in_channel"] = "in_channel"
    username: str = "joker"
    attachments: list[SlackAttachment]


@router.get(
    "/",
    summary="Show the page, or tell a joke to a client of icanhazdadjoke",
    tags=["jokes"],
    dependencies=[Depends(require_key)],
    response_model=DadJoke,
    responses={**PROBLEM_RESPONSES, **GENERATION_RESPONSES, 200: {"content": {TEXT: {}, HTML: {}}}},
)
async def page(
    request: Request, archive: ArchiveDep, submission: SubmissionDep, settings: SettingsDep
) -> Response:
    """Show the page with a joke of the pool that this client has not heard.

    If there is none, the page requests a joke, unless the pool is turned off. With
    `Accept: application/json` or `text/plain`, tell a joke instead; curl gets plain text by
    default.
    """
    is_curl = request.headers.get("user-agent", "").startswith("curl/")
    offers = _TERMINAL_OFFERS if is_curl else _OFFERS
    media_type = choose_media_type(request.headers.get("accept", ""), offers)
    if media_type != HTML:
        return await _tell_dadjoke(request, submission, media_type)
    taken = [] if is_head(request) else await archive.take_from_pool(identify_client(request))
    jokes = list(map(PublishedJoke.of_stored, taken))
    eager = settings.pool_size > 0 and not jokes
    return render_page(request, jokes=jokes, eager=eager, headers={"Vary": _VARY})


@router.get(
    "/slack",
    summary="Tell a joke to Slack",
    tags=["jokes"],
    dependencies=[Depends(require_key)],
    responses={**PROBLEM_RESPONSES, **GENERATION_RESPONSES},
)
async def tell_slack(request: Request, submission: SubmissionDep) -> SlackMessage:
    """Tell a joke as a message for Slack, with its link."""
    joke = await _tell(request, submission)
    text = html.escape(_one_line(joke), quote=False)  # as Slack asks
    link = f"<{request.base_url}{(joke.link or '/')[1:]}|permalink>"
    return SlackMessage(attachments=[SlackAttachment(fallback=text, footer=link, text=text)])


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """Show the API with Swagger UI."""
    return HTMLResponse(load_template("docs.html").render())


async def _tell_dadjoke(request: Request, submission: Submission, media_type: str) -> Response:
    """Tell a joke in icanhazdadjoke's format, as JSON or as text."""
    joke = await _tell(request, submission)
    line = _one_line(joke)
    if media_type == JSON:
        body = DadJoke(id=joke.id, joke=line).model_dump_json()
        return Response(body, media_type=JSON, headers={"Vary": _VARY})
    return PlainTextResponse(line, headers={"Vary": _VARY})


async def _tell(request: Request, submission: Submission) -> LinkedJoke:
    task = await submission.tell_task(request, JokeParameters())
    return task.result[0]


def _one_line(joke: LinkedJoke) -> str:
    """Return a joke in one line, like those of icanhazdadjoke."""
    return " ".join(f"{joke.question} {joke.answer}".split())
