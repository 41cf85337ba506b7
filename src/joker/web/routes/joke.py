"""``/joke``: jokes at once, as text, JSON or a page."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse, Response

from joker.web.dependencies import TheSettings, TheSubmission
from joker.web.errors import PROBLEM_RESPONSES, TELLING_RESPONSES
from joker.web.negotiation import HTML, JSON, TEXT, render_jokes
from joker.web.schemas import JokeParameters
from joker.web.security import require_key

_EXAMPLE = "Why did the kettle blush?\nIt saw the teapot's bare spout.\n"

router = APIRouter(
    tags=["jokes"],
    dependencies=[Depends(require_key)],
    responses={
        **PROBLEM_RESPONSES,
        **TELLING_RESPONSES,
        200: {
            "description": "The jokes, in the format of `Accept`, by default plain text.",
            "content": {
                TEXT: {"example": _EXAMPLE},
                JSON: {"schema": {"$ref": "#/components/schemas/Task"}},
                HTML: {},
            },
        },
    },
)


@router.get("/joke", summary="Tell a joke now", response_class=PlainTextResponse)
async def tell(
    request: Request,
    parameters: Annotated[JokeParameters, Query()],
    submission: TheSubmission,
    settings: TheSettings,
) -> Response:
    """Tell jokes and wait for them: `curl HOST/joke` prints one.

    Without a prompt and parameters of sampling, the pool's jokes come first, at once and never the
    same one twice for a client.
    """
    task = await submission.answer(request, parameters)
    asked = parameters.to_request(settings)
    return render_jokes(request, task.result, task, (TEXT, JSON, HTML), asked=asked)
