"""icanhazdadjoke's shapes: a joke at ``/`` for programs, and ``/slack`` for Slack.

The page itself, which browsers get at ``/``, is in `joker.web.routes.page`.
"""

from __future__ import annotations

import html
from typing import Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, Field

from joker.web.dependencies import TheSubmission
from joker.web.errors import PROBLEM_RESPONSES, TELLING_RESPONSES
from joker.web.negotiation import JSON
from joker.web.schemas import JokeParameters, LinkedJoke
from joker.web.security import require_key
from joker.web.submission import Submission

VARY = "Accept, User-Agent"

router = APIRouter(
    tags=["jokes"],
    dependencies=[Depends(require_key)],
    responses={**PROBLEM_RESPONSES, **TELLING_RESPONSES},
)


class DadJoke(BaseModel):
    """A joke in icanhazdadjoke's shape."""

    id: str | None = Field(description="The joke's id at `/jokes/{id}`.")
    joke: str = Field(examples=["Why did the kettle blush? It saw the teapot's bare spout."])
    status: Literal[200] = 200


class SlackAttachment(BaseModel):
    """A joke as an attachment of a message in Slack."""

    fallback: str
    footer: str
    text: str


class SlackMessage(BaseModel):
    """A joke as Slack shows it."""

    response_type: Literal["in_channel"] = "in_channel"
    username: str = "joker"
    attachments: list[SlackAttachment]


@router.get("/slack", summary="Tell a joke to Slack")
async def tell_slack(request: Request, submission: TheSubmission) -> SlackMessage:
    """Tell a joke as a message for Slack, with a permanent link."""
    joke = await _tell(request, submission)
    text = html.escape(_line_of(joke), quote=False)  # as Slack asks
    link = f"<{request.base_url}{(joke.link or '/')[1:]}|permalink>"
    return SlackMessage(attachments=[SlackAttachment(fallback=text, footer=link, text=text)])


async def tell_dadjoke(request: Request, submission: Submission, media_type: str) -> Response:
    """Return a joke in icanhazdadjoke's shape, as JSON or as text."""
    joke = await _tell(request, submission)
    line = _line_of(joke)
    if media_type == JSON:
        body = DadJoke(id=joke.id, joke=line).model_dump_json()
        return Response(body, media_type=JSON, headers={"Vary": VARY})
    return PlainTextResponse(line, headers={"Vary": VARY})


async def _tell(request: Request, submission: Submission) -> LinkedJoke:
    task = await submission.answer(request, JokeParameters())
    return task.result[0]


def _line_of(joke: LinkedJoke) -> str:
    """Return a joke in one line, as the jokes of icanhazdadjoke are."""
    return " ".join(f"{joke.question} {joke.answer}".split())
