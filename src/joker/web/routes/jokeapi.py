"""``/joke/{category}``: jokes for clients of JokeAPI, which change nothing but the host's name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any
from xml.etree import ElementTree  # it only writes here

import yaml
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import PlainTextResponse, Response

from joker.core.errors import InputError
from joker.web.dependencies import TheSettings, TheSubmission
from joker.web.errors import JOKEAPI_RESPONSES
from joker.web.jokeapi_schemas import (
    CATEGORY_PATTERN,
    JokeApiAnswer,
    JokeApiAnswers,
    JokeApiJoke,
    JokeApiParameters,
    choose_category,
)
from joker.web.negotiation import JSON, TEXT
from joker.web.security import require_key

_XML = "application/xml"
_YAML = "application/yaml"
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BETWEEN_TEXTS = f"\n\n{46 * '-'}\n\n"

router = APIRouter(tags=["jokes"], dependencies=[Depends(require_key)], responses=JOKEAPI_RESPONSES)


@router.get(
    "/joke/{category}",
    summary="Tell a joke to a client of JokeAPI",
    response_model=JokeApiAnswer | JokeApiAnswers,
    responses={200: {"content": {TEXT: {}, _XML: {}, _YAML: {}}}},
)
async def tell(
    category: Annotated[
        str,
        Path(
            description="One or more, separated by commas.",
            examples=["Any", "Programming,Pun"],
            json_schema_extra={"pattern": CATEGORY_PATTERN},
        ),
    ],
    asked: Annotated[JokeApiParameters, Query()],
    request: Request,
    submission: TheSubmission,
    settings: TheSettings,
) -> Response:
    """Tell jokes with JokeAPI's parameters, answers and errors; `docs/api.md` lists differences."""
    if "idRange" in request.query_params:
        raise InputError("idRange: ids are not numbers here; GET /jokes/{id} shows a joke")
    chosen = choose_category(category, asked)
    task = await submission.answer(request, asked.to_parameters(chosen, settings.max_count))
    jokes = [JokeApiJoke.of(joke, chosen, asked) for joke in task.result]
    if asked.format == "txt":
        return PlainTextResponse(_BETWEEN_TEXTS.join(joke.text for joke in jokes))
    answer: JokeApiAnswer | JokeApiAnswers
    if asked.amount == 1:
        answer = JokeApiAnswer(**jokes[0].model_dump())
    else:
        answer = JokeApiAnswers(amount=len(jokes), jokes=jokes)
    if asked.format == "json":
        return Response(answer.model_dump_json(exclude_none=True), media_type=JSON)
    values = answer.model_dump(exclude_none=True)
    if asked.format == "yaml":
        text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
        return Response(text, media_type=_YAML)
    root = ElementTree.Element("data")
    _add_children(root, values)
    ElementTree.indent(root, "    ")
    return Response(ElementTree.tostring(root, "utf-8", xml_declaration=True), media_type=_XML)


def _add_children(parent: ElementTree.Element, values: Mapping[str, Any]) -> None:
    """Add an element for each value, and for each item of a list."""
    for name, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            child = ElementTree.SubElement(parent, name)
            if isinstance(item, dict):
                _add_children(child, item)
            else:
                text = item if isinstance(item, str) else json.dumps(item)
                child.text = _NOT_IN_XML.sub("\ufffd", text)
