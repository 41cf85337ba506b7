"""Error responses: problem details (RFC 9457) for programs, a page for browsers.

Below ``/v1`` they have OpenAI's format, below ``/joke/`` JokeAPI's.

Routes raise the exceptions of `joker.core.errors`, or Starlette's `HTTPException` for errors of
HTTP itself. Middleware calls `render_problem`.
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
_NOT_AN_OBJECT = "send a JSON object, with 'Content-Type: application/json'"
_UNREADABLE_BODY = (
    "the body is not UTF-8, is nested too deeply or has too long a number; send plain JSON"
)
_MAX_NAME_CHARACTERS = 100

_log = logging.getLogger(__name__)


def problem_response(description: str) -> dict[str, Any]:
    """Return the OpenAPI description of an error response."""
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {"application/problem+json": {"schema": schema}}
    return {"description": description, "content": content}


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: problem_response("The API key is missing or wrong."),
    422: problem_response(
        "A parameter is invalid (`errors` names it), or no acceptable joke was found "
        f"(`type` is `{REFUSED_TYPE}`)."
    ),
    429: problem_response("The rate limit is reached; `Retry-After` says when to try again."),
    503: problem_response("The queue is full or down; `Retry-After` says when to try again."),
}

BODY_RESPONSES: dict[int | str, dict[str, Any]] = {
    **PROBLEM_RESPONSES,
    400: problem_response("The body is not UTF-8, is nested too deeply or has too long a number."),
    408: problem_response("The body was not received in time."),
    413: problem_response("The body is too large; `/info` has the limit."),
}

GENERATION_RESPONSES: dict[int | str, dict[str, Any]] = {
    502: problem_response("The server failed to generate the joke."),
    504: problem_response("The joke was not told in time."),
}


def openai_responses(
    responses: Mapping[int | str, dict[str, Any]],
) -> dict[int | str, dict[str, Any]]:
    """Return the same responses in OpenAI's format, for routes below ``/v1``."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    return {status: {**response, "content": content} for status, response in responses.items()}


JOKEAPI_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JokeApiError"}}},
    }
    for status, description in {
        "4XX": "No joke for these parameters (400), no valid API key (401), rate limit (429).",
        "5XX": "The server failed to generate the joke.",
    }.items()
}


class HeadError(Exception):
    """Ends a HEAD request before a joke is taken from the pool or generated."""


class UnknownModelError(InputError):
    """A client of OpenAI's API names an unknown model."""


# The first matching class decides.
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
    """Register the handlers of all exceptions that routes raise."""
    app.add_exception_handler(JokerError, _handle_joker_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(HeadError, _handle_head_error)


def public_message(error: JokerError) -> str:
    """Return an error's message for clients, without internals of the queue and the store."""
    if isinstance(error, QueueDownError):
        _log.warning("%s", error)
        return "the queue cannot be reached; try again in a few seconds"
    if isinstance(error, StoreDownError):  # the store has logged it
        return "the store cannot be reached; try again in a few seconds"
    return str(error)


def render_problem(
    request: Request,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[WrongParameter] | None = None,
    code: str | None = None,
) -> Response:
    """Return an error response in the format of the path and the ``Accept`` header.

    Args:
        request: The request that failed.
        status: The HTTP status.
        detail: One sentence that names what is wrong and what to do.
        headers: Additional headers; 503 always has ``Retry-After``.
        errors: The invalid parameters.
        code: OpenAI's error code, if the status does not imply it.
    """
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": str(_RETRY_AFTER_SECONDS), **(headers or {})}
    if request.url.path.startswith("/v1/"):
        content = _openai_error(status, detail, errors, code).model_dump()
        return JSONResponse(content, status_code=status, headers=headers)
    if request.url.path.startswith("/joke/"):
        # JokeAPI has one status for all invalid requests.
        status = HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status
        content = _jokeapi_error(status, detail).model_dump()
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


def _openai_error(
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


def _jokeapi_error(status: int, detail: str) -> JokeApiError:
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
        location, name = _locate_prompt(request)
        errors = [WrongParameter(parameter=name, location=location, detail=str(error))]
    return render_problem(request, status, public_message(error), errors=errors, code=code)


def _locate_prompt(request: Request) -> tuple[str, str]:
    name = "messages" if request.url.path.endswith("/chat/completions") else "prompt"
    return ("query" if request.method == "GET" else "body"), name


async def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [_to_wrong_parameter(details) for details in error.errors()]
    detail = "; ".join(f"{wrong.parameter}: {wrong.detail}" for wrong in errors)
    return render_problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def _to_wrong_parameter(error: Mapping[str, Any]) -> WrongParameter:
    """Describe one of pydantic's errors without the input, which may be long or private."""
    location, *path = error["loc"]
    detail = str(error["msg"]).removeprefix("Value error, ")
    detail = detail.replace("tuple", "list").replace("Tuple", "List")  # JSON has no tuples
    if error["type"] == "extra_forbidden":
        detail = "unknown parameter; /docs lists them"
    if error["type"] == "json_invalid":
        path, detail = [], f"not valid JSON: {error['ctx']['error']}"
    if not path and error["type"] in ("missing", "model_attributes_type"):
        detail = _NOT_AN_OBJECT
    # The client's name may be long, or contain half a surrogate pair, which cannot be encoded.
    parameter = ".".join(map(str, path)).encode(errors="replace").decode() or str(location)
    parameter = parameter[:_MAX_NAME_CHARACTERS]
    return WrongParameter(parameter=parameter, location=str(location), detail=detail)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, detail, headers = HTTPStatus(error.status_code), error.detail, error.headers
    if status == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _allowed_methods(request)):
        headers = {"Allow": ", ".join(methods)}
    if status == HTTPStatus.BAD_REQUEST:
        detail = _UNREADABLE_BODY
    if detail == status.phrase:
        detail = {
            HTTPStatus.NOT_FOUND: f"there is nothing at {request.url.path}; see /docs",
            HTTPStatus.METHOD_NOT_ALLOWED: f"{request.url.path} does not support {request.method}; "
            "see /docs",
        }.get(status, detail)
    return render_problem(request, status, detail, headers)


async def _handle_head_error(_: Request, __: Exception) -> Response:
    response = Response()
    del response.headers["Content-Length"]  # unknown, because no joke was told
    return response


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes at a path; the router lists only those of one."""
    path = getattr(request.scope.get("route"), "path", None)
    methods = [method.upper() for method in request.app.openapi()["paths"].get(path, ())]
    return [*methods, "HEAD"] if "GET" in methods else methods
