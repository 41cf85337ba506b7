"""``/`` and ``/docs``: the pages, without files from other servers."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response

from joker.web.dependencies import TheArchive, TheSubmission
from joker.web.errors import PROBLEM_RESPONSES, TELLING_RESPONSES
from joker.web.html import load_template, render_page
from joker.web.negotiation import HTML, JSON, TEXT, choose_media_type
from joker.web.routes.dadjoke import VARY, DadJoke, tell_dadjoke
from joker.web.schemas import PublishedJoke
from joker.web.security import identify_client, require_key

_OFFERS = (HTML, JSON, TEXT)
_TERMINAL_OFFERS = (TEXT, HTML, JSON)

router = APIRouter()


@router.get(
    "/",
    summary="Show the page, or tell a joke to a client of icanhazdadjoke",
    tags=["jokes"],
    dependencies=[Depends(require_key)],
    response_model=DadJoke,
    responses={**PROBLEM_RESPONSES, **TELLING_RESPONSES, 200: {"content": {TEXT: {}, HTML: {}}}},
)
async def page(request: Request, archive: TheArchive, submission: TheSubmission) -> Response:
    """Show the page with a joke of the pool that this client has not had, if there is one.

    With `Accept: application/json` or `text/plain`, tell a joke, and to curl in any case, unless
    it asks for something else.
    """
    in_terminal = request.headers.get("user-agent", "").startswith("curl/")
    offers = _TERMINAL_OFFERS if in_terminal else _OFFERS
    wanted = choose_media_type(request.headers.get("accept", ""), offers)
    if wanted != HTML:
        return await tell_dadjoke(request, submission, wanted)
    found = await archive.take_from_pool(identify_client(request))
    jokes = list(map(PublishedJoke.of, found))
    return render_page(request, jokes=jokes, headers={"Vary": VARY})


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """Show the API with Swagger UI."""
    return HTMLResponse(load_template("docs.html").render())
