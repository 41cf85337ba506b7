"""Errors over HTTP, mapped once: problem+json (RFC 9457) for programs, a page for browsers.

Below ``/v1`` they are OpenAI's error object, with the same statuses, below ``/joke/`` JokeAPI's.

Routes raise from the tree of `joker.core.errors`, or Starlette's `HTTPException` where
the error is about HTTP itself. Middleware responds with `render_problem` too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from joker.core.errors import (
    GenerationError,
    InputError,
    JokerError,
    KeyConflictError,
    PromptWithheldError,
    QueueDownError,
    QueueFullError,
    QueueStoppedError,
    StoreDownError,
    UnknownJobError,
    UnknownJokeError,
)
from joker.web.html import prefers_html, render_page
from joker.web.schemas import (
    REFUSED_TYPE,
    ErrorDetail,
    ErrorKind,
    JokeApiError,
    OpenAIError,
    Problem,
    WrongParameter,
)

_RETRY_AFTER_SECONDS = 5
_OPENAI_CODES = {
    HTTPStatus.UNAUTHORIZED: "invalid_api_key",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_exceeded",
}
REFUSED_CODE = "joke_refused"
_JOKEAPI_CODES = {
    HTTPStatus.BAD_REQUEST: (106, "No matching joke found"),
    HTTPStatus.NOT_FOUND: (102, "Endpoint not found"),
    HTTPStatus.TOO_MANY_REQUESTS: (101, "Too many requests"),
}
_NO_OBJECT = "send a JSON object, with 'Content-Type: application/json'"
_UNREADABLE = (
    "the body is not UTF-8, is nested too deeply or has too long a number; send plain JSON"
)
_MOST_CHARACTERS = 100
_QUEUE_DOWN = "the queue cannot be reached; try again in a few seconds"
_STORE_DOWN = "the store cannot be reached; try again in a few seconds"

_log = logging.getLogger(__name__)


def describe_problem(description: str) -> dict[str, Any]:
    """Return the OpenAPI description of a response that is a problem."""
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {"application/problem+json": {"schema": schema}}
    return {"description": description, "content": content}


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: describe_problem("The API key is missing or wrong."),
    422: describe_problem(
        "A parameter cannot be used (`errors` names it), or no acceptable joke was found "
        f"(`type` is `{REFUSED_TYPE}`)."
    ),
    429: describe_problem("Too many jokes in a short time; `Retry-After` says when to try again."),
    503: describe_problem(
        "Too many jobs wait, or the queue is down; `Retry-After` says when to try again."
    ),
}

BODY_RESPONSES: dict[int | str, dict[str, Any]] = {
    **PROBLEM_RESPONSES,
    400: describe_problem("The body is not UTF-8, is nested too deeply or has too long a number."),
    408: describe_problem("The body was not received in time."),
    413: describe_problem("The body is too large; `/info` has the limit."),
}

TELLING_RESPONSES: dict[int | str, dict[str, Any]] = {
    502: describe_problem("The joke was not told for a reason on the server's side."),
    504: describe_problem("No joke in time."),
}


def describe_for_openai(
    responses: Mapping[int | str, dict[str, Any]],
) -> dict[int | str, dict[str, Any]]:
    """Return the same responses in OpenAI's shape, for routes below ``/v1``."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    return {status: {**response, "content": content} for status, response in responses.items()}


JOKEAPI_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JokeApiError"}}},
    }
    for status, description in {
        "4XX": "No joke for these parameters (400), no valid API key (401), too many jokes (429).",
        "5XX": "No joke for a reason on the server's side.",
    }.items()
}


class HeadError(Exception):
    """Ends a HEAD request where a joke would be taken from the pool or drafted."""


class UnknownModelError(InputError):
    """A client of OpenAI's API names a model that is not there."""


# The first class that fits decides.
_STATUSES: tuple[tuple[type[JokerError], HTTPStatus], ...] = (
    (UnknownJobError, HTTPStatus.NOT_FOUND),
    (UnknownModelError, HTTPStatus.NOT_FOUND),
    (KeyConflictError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (UnknownJokeError, HTTPStatus.NOT_FOUND),
    (StoreDownError, HTTPStatus.SERVICE_UNAVAILABLE),
    (QueueFullError, HTTPStatus.SERVICE_UNAVAILABLE),
    (QueueDownError, HTTPStatus.SERVICE_UNAVAILABLE),
    (QueueStoppedError, HTTPStatus.SERVICE_UNAVAILABLE),
    (GenerationError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (JokerError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
_CODES = {GenerationError: REFUSED_CODE, UnknownModelError: "model_not_found"}


def install_error_handlers(app: FastAPI) -> None:
    """Respond to every error that a route raises with a problem."""
    app.add_exception_handler(JokerError, _handle_joker_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(HeadError, _answer_head)


def tell_client(error: JokerError) -> str:
    """Return an error's message for clients; messages about the internals are only logged."""
    if isinstance(error, QueueDownError):
        _log.warning("%s", error)
        return _QUEUE_DOWN
    if isinstance(error, StoreDownError):
        return _STORE_DOWN  # the store has logged it
    return str(error)


def render_problem(
    request: Request,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[WrongParameter] | None = None,
    code: str | None = None,
) -> Response:
    """Return an error as the client asks for it: a page, problem+json or OpenAI's object.

    Args:
        request: The request that failed.
        status: The HTTP status.
        detail: One sentence that names what is wrong and what to do.
        headers: Further headers of the response; 503 always has ``Retry-After``.
        errors: Each parameter that cannot be used.
        code: OpenAI's name for what is wrong, if the status does not say it all.
    """
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": str(_RETRY_AFTER_SECONDS), **(headers or {})}
    if request.url.path.startswith("/v1/"):
        content = _shape_for_openai(status, detail, errors, code).model_dump()
        return JSONResponse(content, status_code=status, headers=headers)
    if request.url.path.startswith("/joke/"):
        # JokeAPI has one status for everything that a client may have got wrong.
        status = HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status
        content = _shape_for_jokeapi(status, detail).model_dump()
        return JSONResponse(content, status_code=status, headers=headers)
    refused = code == REFUSED_CODE
    problem = Problem(
        type=REFUSED_TYPE if refused else "about:blank",
        title="Joke Refused" if refused else HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        request_id=request.state.request_id,
        errors=list(errors) if errors else None,
    )
    if prefers_html(request):
        return render_page(request, problem=problem, status=status, headers=headers)
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )


def _shape_for_openai(
    status: int, detail: str, errors: Sequence[WrongParameter] | None, code: str | None
) -> OpenAIError:
    type_: ErrorKind
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        type_ = "rate_limit_error"
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        type_ = "server_error"
    else:
        type_ = "invalid_request_error"
    param = errors[0].parameter.partition(".")[0] if errors else None
    code = code or _OPENAI_CODES.get(HTTPStatus(status))
    return OpenAIError(error=ErrorDetail(message=detail, type=type_, param=param, code=code))


def _shape_for_jokeapi(status: int, detail: str) -> JokeApiError:
    phrase = HTTPStatus(status).phrase
    code, message = _JOKEAPI_CODES.get(HTTPStatus(status), (100, phrase))
    return JokeApiError(
        internalError=status >= HTTPStatus.INTERNAL_SERVER_ERROR,
        code=code,
        message=message,
        causedBy=[detail],
        additionalInfo=detail,
        timestamp=time.time_ns() // 1_000_000,
    )


async def _handle_joker_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, JokerError)
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    errors = None
    if isinstance(error, PromptWithheldError):
        errors = [_describe({"loc": _locate_prompt(request), "msg": str(error), "type": ""})]
    return render_problem(request, status, tell_client(error), errors=errors, code=code)


def _locate_prompt(request: Request) -> tuple[str, str]:
    name = "messages" if request.url.path.endswith("/chat/completions") else "prompt"
    return ("query" if request.method == "GET" else "body"), name


async def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = [_describe(item) for item in error.errors()]
    detail = "; ".join(f"{one.parameter}: {one.detail}" for one in wrong)
    return render_problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=wrong)


def _describe(item: Mapping[str, Any]) -> WrongParameter:
    """Describe one finding without the value that was sent, which may be long or private."""
    location, *path = item["loc"]
    detail = str(item["msg"]).removeprefix("Value error, ")
    detail = detail.replace("tuple", "list").replace("Tuple", "List")  # JSON has no tuples
    if item["type"] == "extra_forbidden":
        detail = "unknown parameter; /docs lists them"
    if item["type"] == "json_invalid":
        path, detail = [], f"not valid JSON: {item['ctx']['error']}"
    if not path and item["type"] in ("missing", "model_attributes_type"):
        detail = _NO_OBJECT
    # A name may be half a surrogate pair, which cannot be sent back, or long.
    parameter = ".".join(map(str, path)).encode(errors="replace").decode() or str(location)
    parameter = parameter[:_MOST_CHARACTERS]
    return WrongParameter(parameter=parameter, location=str(location), detail=detail)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, detail, headers = HTTPStatus(error.status_code), error.detail, error.headers
    if status == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _find_methods(request)):
        headers = {"Allow": ", ".join(methods)}
    if status == HTTPStatus.BAD_REQUEST:
        detail = _UNREADABLE
    if detail == status.phrase:
        detail = {
            HTTPStatus.NOT_FOUND: f"there is nothing at {request.url.path}; see /docs",
            HTTPStatus.METHOD_NOT_ALLOWED: f"{request.url.path} does not support {request.method}; "
            "see /docs",
        }.get(status, detail)
    return render_problem(request, status, detail, headers)


async def _answer_head(_: Request, __: Exception) -> Response:
    response = Response()
    del response.headers["Content-Length"]  # nobody knows that of a joke that is not told
    return response


def _find_methods(request: Request) -> list[str]:
    """Return the methods of a documented path; the router knows only those of one route."""
    path = getattr(request.scope.get("route"), "path", None)
    methods = [method.upper() for method in request.app.openapi()["paths"].get(path, ())]
    return [*methods, "HEAD"] if "GET" in methods else methods
