"""Renders the page: empty, with jokes, or with an error.

Templates escape everything, so a model's output is always shown as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from joker.generation.request import GenerationRequest
from joker.settings import Settings
from joker.web.schemas import LinkedJoke, Problem, PublishedJoke
from joker.web.static import locate


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
        problem: What went wrong.
        status: The HTTP status.
        headers: Further headers.
    """
    settings: Settings = request.app.state.settings
    text = load_template("index.html").render(
        asked=asked or GenerationRequest(),
        jokes=jokes,
        message=message,
        problem=problem,
        most_jokes=settings.max_count,
        most_characters=settings.max_prompt_characters,
    )
    return HTMLResponse(text, status, headers)
