"""``/joke`` and ``/jokes/{id}``: jokes at once, as text, JSON or a page."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import ValidationError

from joker.core.errors import UnknownJobError
from joker.jobs.job import Job
from joker.web.dependencies import TheIntake
from joker.web.errors import PROBLEM_RESPONSES, describe_problem
from joker.web.html import render_page
from joker.web.negotiation import HTML, JSON, TEXT, choose_media_type
from joker.web.schemas import JokeOptions, Task
from joker.web.security import require_key
from joker.web.share_links import read_link

_LINK_SECONDS = 300
_EXAMPLE = "Why did the kettle blush?\nIt saw the teapot's bare spout.\n"

router = APIRouter(
    tags=["jokes"],
    dependencies=[Depends(require_key)],
    responses={
        **PROBLEM_RESPONSES,
        200: {
            "description": "The jokes, in the form that `Accept` asks for; else plain text.",
            "content": {
                TEXT: {"example": _EXAMPLE},
                JSON: {"schema": {"$ref": "#/components/schemas/Task"}},
                HTML: {},
            },
        },
        502: describe_problem("The model gave no acceptable joke."),
        504: describe_problem("No joke in time."),
    },
)


@router.get("/joke", summary="Tell a joke now", response_class=PlainTextResponse)
async def tell(
    request: Request, options: Annotated[JokeOptions, Query()], intake: TheIntake
) -> Response:
    """Tell jokes and wait for them: `curl HOST/joke` prints one."""
    return _show(request, options, await intake.tell(request, options))


@router.get(
    "/jokes/{link_id}",
    summary="Tell a shared joke again",
    response_class=PlainTextResponse,
    responses={404: describe_problem("The link is damaged.")},
)
async def tell_again(link_id: str, request: Request, intake: TheIntake) -> Response:
    """Tell the joke of a link; the same one as long as the server keeps its model."""
    try:
        options = JokeOptions.model_validate(read_link(link_id))
    except ValidationError as error:
        raise UnknownJobError(
            "this link leads to no joke; check that all of it was copied"
        ) from error
    # Those who follow a link in the same minutes share one job.
    key = f"link-{time.time() // _LINK_SECONDS:.0f}-{link_id}"
    return _show(request, options, await intake.tell(request, options, key))


def _show(request: Request, options: JokeOptions, job: Job) -> Response:
    task = Task.of(job)
    wanted = choose_media_type(request.headers.get("accept", ""), (TEXT, JSON, HTML))
    response: Response
    if wanted == HTML:
        response = render_page(request, options, task.result)
    elif wanted == JSON:
        response = Response(task.model_dump_json(), media_type=JSON)
    else:
        jokes = "\n".join(f"{joke.question}\n{joke.answer}\n" for joke in task.result)
        response = PlainTextResponse(jokes)
    response.headers["Vary"] = "Accept"
    return response
