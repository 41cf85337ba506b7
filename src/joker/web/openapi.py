"""The OpenAPI document: what FastAPI finds in the routes, and what only this server knows."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from joker.settings import Settings
from joker.web.schemas import Problem


def describe(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """Return an application's document, with its limits, and keys only if it asks for any.

    Problems stand in it, too, which no route returns itself.
    """
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        license_info=app.license_info,
        routes=app.routes,
    )
    components = document["components"]
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    components["schemas"].update(problem.pop("$defs"))
    components["schemas"]["Problem"] = problem
    _state_limits(document, settings)
    if not settings.api_keys:
        del components["securitySchemes"]
        for path in document["paths"].values():
            for operation in path.values():
                operation.pop("security", None)
    return document


def _state_limits(document: dict[str, Any], settings: Settings) -> None:
    most = {
        "prompt": {"maxLength": settings.max_prompt_characters},
        "textprompt": {"maxLength": settings.max_prompt_characters},
        "n": {"maximum": settings.max_count},
        "candidates": {"maximum": settings.max_candidates},
        "max_new_tokens": {"maximum": settings.max_new_tokens},
        "max_tokens": {"maximum": settings.max_new_tokens},
        "deadline_seconds": {"maximum": settings.deadline_seconds},
    }
    places = [
        *((one["name"], one["schema"]) for one in document["paths"]["/joke"]["get"]["parameters"]),
        *document["components"]["schemas"]["GenerateBody"]["properties"].items(),
        *document["components"]["schemas"]["CompletionBody"]["properties"].items(),
    ]
    for name, schema in places:
        # What may be null has its limits in the first of two branches.
        schema.get("anyOf", [schema])[0].update(most.get(name, {}))
