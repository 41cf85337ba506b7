"""``/jokes``: stored jokes, votes on them, and lists of the best."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException

from joker.core.errors import UnknownJokeError
from joker.store import Period, Store, StoredJoke, Vote, Votes
from joker.web.dependencies import ArchiveDep, LimiterDep, StoreDep, require_key
from joker.web.errors import BODY_RESPONSES, PROBLEM_RESPONSES, problem_response
from joker.web.html import HTML, JSON, TEXT, render_jokes, render_page
from joker.web.limits import identify_client
from joker.web.middleware import stop_at_head
from joker.web.picture import draw_joke
from joker.web.schemas import PublishedJoke, PublishedJokes, link_to

_OFFERS = (JSON, TEXT, HTML)
_PNG = "image/png"
_FORM = "application/x-www-form-urlencoded"
_TOP_MESSAGES: dict[Period, str] = {
    "day": "The best jokes of the day.",
    "week": "The best jokes of the week.",
    "month": "The best jokes of the month.",
    "ever": "The best jokes.",
}
_MAX_LIMIT = 100
_REPORTED = "Thank you. This joke was reported, so it is now hidden from everyone."
_NOT_FOUND = problem_response("There is no such joke, or it was reported.")
_STORE_DOWN = problem_response("The store is down; `Retry-After` says when to try again.")

router = APIRouter(
    prefix="/jokes",
    tags=["jokes"],
    dependencies=[Depends(require_key)],
    responses={
        401: PROBLEM_RESPONSES[401],
        422: PROBLEM_RESPONSES[422],
        503: _STORE_DOWN,
    },
)


class VoteBody(BaseModel):
    """A vote on a joke."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"title": "Vote"})

    vote: Vote


@router.get(
    "/top",
    summary="List the best jokes",
    response_model=PublishedJokes,
    responses={200: {"content": {TEXT: {}, HTML: {}}}},
)
async def list_top(
    request: Request,
    store: StoreDep,
    period: Annotated[
        Period, Query(description="List jokes with votes in the last day, week or month, or ever.")
    ] = "week",
    limit: Annotated[int, Query(ge=1, le=_MAX_LIMIT, description="Maximum number of jokes.")] = 10,
) -> Response:
    """Return the best jokes that received a vote in a period, without offensive ones."""
    jokes = list(map(PublishedJoke.of_stored, await asyncio.to_thread(store.top, period, limit)))
    message = _TOP_MESSAGES[period] if jokes else "No liked jokes in this period yet."
    return render_jokes(request, jokes, PublishedJokes(jokes=jokes), _OFFERS, message=message)


@router.get(
    "/today",
    summary="Show the joke of the day",
    response_model=PublishedJoke,
    responses={
        200: {"content": {TEXT: {}, HTML: {}}},
        404: problem_response("No joke is in the pool, and none is liked."),
    },
)
async def show_today(request: Request, store: StoreDep) -> Response:
    """Return the joke of the day (UTC), the same for everyone."""
    stored = await asyncio.to_thread(store.today)
    if stored is None:
        raise HTTPException(404, "there is no joke of the day yet; GET /joke generates one")
    joke = PublishedJoke.of_stored(stored)
    return render_jokes(request, [joke], joke, _OFFERS, message="The joke of the day.")


@router.get(
    "/random",
    summary="Take a joke from the pool",
    response_model=PublishedJoke,
    responses={
        200: {"content": {TEXT: {}, HTML: {}}},
        404: problem_response("You have heard all of them; `GET /joke` generates one."),
        429: PROBLEM_RESPONSES[429],
    },
)
async def take_random(request: Request, archive: ArchiveDep, limiter: LimiterDep) -> Response:
    """Return the best joke of the pool that this client has not heard, without offensive ones."""
    stop_at_head(request)
    client = identify_client(request)
    if limiter:
        request.state.headers |= await limiter.take(client, 1)
    taken = await archive.take_from_pool(client)
    if not taken:
        raise HTTPException(404, "you have heard every joke in the pool; GET /joke generates one")
    joke = PublishedJoke.of_stored(taken[0])
    return render_jokes(request, [joke], joke, _OFFERS)


@router.get(
    "/{joke_id}",
    summary="Show a joke that was told",
    response_model=PublishedJoke,
    responses={200: {"content": {TEXT: {}, HTML: {}}}, 404: _NOT_FOUND},
)
async def show(joke_id: str, request: Request, store: StoreDep) -> Response:
    """Return a stored joke, even if the server now runs another model."""
    joke = PublishedJoke.of_stored(await _get_visible(store, joke_id))
    return render_jokes(request, [joke], joke, _OFFERS)


@router.get(
    "/{joke_id}/image.png",
    summary="Draw a joke that was told",
    response_class=Response,
    responses={200: {"content": {_PNG: {}}}, 404: _NOT_FOUND},
)
async def draw(
    joke_id: str,
    store: StoreDep,
    punchline: Annotated[bool, Query(description="Show the punchline.")] = True,
) -> Response:
    """Return a picture of a stored joke, 1200 by 630 pixels, for link previews and for sharing."""
    joke = await _get_visible(store, joke_id)
    picture = await asyncio.to_thread(draw_joke, joke.question, joke.answer if punchline else "...")
    # Only a day: the text never changes, but a report may hide it.
    return Response(picture, media_type=_PNG, headers={"Cache-Control": "max-age=86400"})


@router.get("/{joke_id}/reported", include_in_schema=False)
async def show_reported(joke_id: str, request: Request, store: StoreDep) -> Response:
    """Confirm a report that was sent without JavaScript."""
    joke = await asyncio.to_thread(store.get, joke_id)
    if not joke.hidden:
        return RedirectResponse(link_to(joke_id), 303)
    return render_page(request, message=_REPORTED)


async def _get_visible(store: Store, joke_id: str) -> StoredJoke:
    joke = await asyncio.to_thread(store.get, joke_id)
    if joke.hidden:
        raise UnknownJokeError("this joke was reported and is hidden")
    return joke


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read_vote(request: Request) -> Vote:
    """Return the vote of a JSON body, or of the page's form without JavaScript.

    Raises:
        HTTPException: 403 if the form is on another site (cross-site request forgery), 415 if the
            body is neither JSON nor a form.
        RequestValidationError: If the vote is invalid.
    """
    media_type = _media_type(request)
    body = await request.body()
    try:
        if media_type == JSON:
            return VoteBody.model_validate_json(body).vote
        if media_type == _FORM:
            if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                raise HTTPException(403, "vote on this site's page, or send the vote as JSON")
            fields = parse_qs(body.decode(errors="replace"))
            values = {name: values[-1] for name, values in fields.items()}
            return VoteBody.model_validate(values).vote
    except ValidationError as error:
        errors = [{**details, "loc": ("body", *details["loc"])} for details in error.errors()]
        raise RequestValidationError(errors) from error
    raise HTTPException(415, f'send the vote as {JSON}, such as {{"vote": "up"}}')


@router.post(
    "/{joke_id}/votes",
    summary="Vote on a joke",
    response_model=Votes,
    responses={
        **BODY_RESPONSES,
        303: {"description": "The form's vote was counted; redirects to the joke's page."},
        403: problem_response("A form on another site sent the vote."),
        404: _NOT_FOUND,
        415: problem_response("The body is neither JSON nor a form."),
        429: PROBLEM_RESPONSES[429],
        503: _STORE_DOWN,
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {type_: {"schema": VoteBody.model_json_schema()} for type_ in (JSON, _FORM)},
        }
    },
)
async def vote(
    joke_id: str,
    value: Annotated[Vote, Depends(_read_vote)],
    request: Request,
    store: StoreDep,
    limiter: LimiterDep,
) -> Response:
    """Vote `up`, `down` or `report`; a client's latest vote on a joke counts.

    A client is an API key or a network address; only a salted hash of it is stored.
    """
    client = identify_client(request)
    if limiter:
        request.state.headers |= await limiter.take(client, 1, "votes")
    counts = await asyncio.to_thread(store.vote, joke_id, client, value)
    if _media_type(request) == _FORM:
        # Browsers open the <details> element around the target of a fragment.
        suffix = "/reported" if counts.report else "#punchline"
        return RedirectResponse(link_to(joke_id) + suffix, 303)
    return JSONResponse(asdict(counts))
