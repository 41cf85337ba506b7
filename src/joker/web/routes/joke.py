"""``/joke``: jokes at once, as text, JSON or a page."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse, Response

from joker.jobs.job import Job
from joker.web.dependencies import TheArchive, TheSettings, TheSubmission
from joker.web.errors import PROBLEM_RESPONSES, describe_problem
from joker.web.html import render_page
from joker.web.negotiation import HTML, JSON, TEXT, choose_media_type
from joker.web.schemas import JokeParameters, Task
from joker.web.security import require_key

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
    request: Request,
    parameters: Annotated[JokeParameters, Query()],
    submission: TheSubmission,
    archive: TheArchive,
    settings: TheSettings,
) -> Response:
    """Tell jokes and wait for them: `curl HOST/joke` prints one."""
    job = await submission.tell(request, parameters.to_request(settings))
    return _show(request, job, await archive.describe(job))


def _show(request: Request, job: Job, task: Task) -> Response:
    wanted = choose_media_type(request.headers.get("accept", ""), (TEXT, JSON, HTML))
    response: Response
    if wanted == HTML:
        response = render_page(request, job.request, task.result)
    elif wanted == JSON:
        response = Response(task.model_dump_json(), media_type=JSON)
    else:
        jokes = "\n".join(f"{joke.question}\n{joke.answer}\n" for joke in task.result)
        response = PlainTextResponse(jokes)
    response.headers["Vary"] = "Accept"
    return response
