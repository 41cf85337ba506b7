"""``/joke/{category}``: jokes for clients of JokeAPI (version 2), which only change the host.

``/categories``, ``/flags`` and ``/languages`` list the values of its parameters. ``docs/api.md``
lists the differences from JokeAPI. `joker.web.errors` renders errors in JokeAPI's format.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args
from xml.etree import ElementTree  # it only writes here

import yaml
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from joker.core.errors import GenerationError, InputError
from joker.generation.moderation import CATEGORIES
from joker.web.dependencies import SettingsDep, SubmissionDep, require_key
from joker.web.errors import JOKEAPI_RESPONSES
from joker.web.html import JSON, TEXT
from joker.web.schemas import JokeParameters, LinkedJoke

JokeApiCategory = Literal["Any", "Misc", "Programming", "Dark", "Pun", "Spooky", "Christmas"]

_CATEGORIES: tuple[JokeApiCategory, ...] = get_args(JokeApiCategory)
_ALIASES: dict[str, JokeApiCategory] = {
    **{category.lower(): category for category in _CATEGORIES},
    "miscellaneous": "Misc",
    "coding": "Programming",
    "development": "Programming",
    "halloween": "Spooky",
}
_TOPICS: dict[JokeApiCategory, tuple[str, ...]] = {
    "Programming": ("programmer", "computer", "code"),
    "Dark": ("death", "funeral", "cemetery", "undertaker"),
    "Spooky": ("ghost", "vampire", "skeleton", "witch"),
    "Christmas": ("Christmas", "Santa", "reindeer"),
}
_SEPARATOR = re.compile(r"[,+\s-]+")
_XML = "application/xml"
_YAML = "application/yaml"
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEXT_SEPARATOR = f"\n\n{46 * '-'}\n\n"  # JokeAPI's

router = APIRouter(tags=["jokes"])


def _list_pattern(words: tuple[str, ...]) -> str:
    """Return the pattern of a list of these words."""
    word = "|".join(words)
    return f"^({word})([,+-]({word}))*$"


_CATEGORY_PATTERN = _list_pattern(_CATEGORIES)


class Flags(BaseModel):
    """The moderation categories of a joke."""

    nsfw: bool
    religious: bool
    political: bool
    racist: bool
    sexist: bool
    explicit: bool


_FLAGS = tuple(Flags.model_fields)


class JokeApiParameters(BaseModel):
    """The query of JokeAPI's `/joke/{category}`; unknown parameters are ignored."""

    model_config = ConfigDict(frozen=True)

    type: Literal["single", "twopart"] = Field(
        default="twopart", description="`single` puts question and answer in one text."
    )
    amount: int = Field(
        default=1, ge=1, description="Number of jokes; the server's limit applies if it is lower."
    )
    contains: str = Field(
        default="", description="A topic or the start of a question; overrides the category."
    )
    safe_mode: str | None = Field(
        default=None,
        alias="safe-mode",
        description="If present, jokes with any flag are withheld; offensive ones always are.",
    )
    blacklist_flags: str = Field(
        default="",
        alias="blacklistFlags",
        description=f"Flags to withhold, separated by commas: {', '.join(_FLAGS)}.",
        json_schema_extra={"pattern": _list_pattern(_FLAGS) + "|^$"},
    )
    format: Literal["json", "xml", "yaml", "txt"] = "json"
    lang: Literal["en"] = Field(default="en", description="The only language of the model.")

    @field_validator("blacklist_flags")
    @classmethod
    def _check_flags(cls, value: str) -> str:
        for name in _split(value):
            if name not in _FLAGS:
                raise ValueError(f"there is no flag {name[:20]!r}; choose {', '.join(_FLAGS)}")
        return value

    @property
    def is_safe(self) -> bool:
        """Whether jokes with any flag are withheld."""
        return self.safe_mode not in (None, "false")

    def to_parameters(self, category: JokeApiCategory, max_count: int) -> JokeParameters:
        """Return the equivalent parameters of `GET /joke`.

        Args:
            category: Topic of the jokes, unless ``contains`` is set.
            max_count: Maximum number of jokes.
        """
        topics = _TOPICS.get(category, ("",))
        excluded = CATEGORIES if self.is_safe else tuple(_split(self.blacklist_flags))
        return JokeParameters(
            prompt=self.contains.strip() or secrets.choice(topics),
            n=min(self.amount, max_count),
            exclude_categories=excluded,
        )


def choose_category(names: str, parameters: JokeApiParameters) -> JokeApiCategory:
    """Return a random one of the categories that a path names; case is ignored, as in JokeAPI.

    Raises:
        InputError: If there is no such category.
        GenerationError: If the only category is dark, and the jokes must be safe.
    """
    categories = [_ALIASES.get(name.lower()) for name in _split(names)]
    known = [category for category in categories if category]
    if not known or len(known) < len(categories):
        raise InputError(f"there is no category {names[:60]!r}; choose {', '.join(_CATEGORIES)}")
    if parameters.is_safe:
        known = [category for category in known if category != "Dark"]
    if not known:
        raise GenerationError("dark jokes are not told in safe-mode; choose another category")
    return "Misc" if parameters.contains.strip() else secrets.choice(known)


class JokeApiJoke(BaseModel):
    """A joke in JokeAPI's format."""

    category: JokeApiCategory = Field(description="The requested category; `Misc` for `Any`.")
    type: Literal["single", "twopart"]
    joke: str | None = Field(default=None, description="The whole joke, if `type` is `single`.")
    setup: str | None = Field(default=None, examples=["Why did the kettle blush?"])
    delivery: str | None = Field(default=None, examples=["It saw the teapot's bare spout."])
    flags: Flags
    id: str | None = Field(
        description="The joke's id at `/jokes/{id}`; missing while jokes cannot be stored."
    )
    safe: bool = Field(description="True if it has no flags and `Dark` was not requested.")
    lang: Literal["en"] = "en"

    @classmethod
    def of(cls, joke: LinkedJoke, category: JokeApiCategory, parameters: JokeApiParameters) -> Self:
        """Return a joke in this format."""
        parts: dict[str, Any] = {"setup": joke.question, "delivery": joke.answer}
        if parameters.type == "single":
            parts = {"joke": f"{joke.question}\n{joke.answer}"}
        return cls(
            category="Misc" if category == "Any" else category,
            type=parameters.type,
            flags=Flags.model_validate({name: name in joke.flags for name in _FLAGS}),
            id=joke.id,
            safe=not joke.flags and category != "Dark",
            **parts,
        )

    @property
    def text(self) -> str:
        """Its text in JokeAPI's format."""
        return self.joke or f"{self.setup}\n\n{self.delivery}"


class JokeApiResponse(JokeApiJoke):
    """One joke."""

    error: Literal[False] = False


class JokeApiListResponse(BaseModel):
    """Several jokes."""

    error: Literal[False] = False
    amount: int
    jokes: list[JokeApiJoke]


class _Listing(BaseModel):
    error: Literal[False] = False
    timestamp: int = Field(
        default_factory=lambda: time.time_ns() // 1_000_000,
        description="In milliseconds since 1970.",
    )


class JokeApiCategories(_Listing):
    """The values of `category`."""

    categories: tuple[JokeApiCategory, ...] = _CATEGORIES
    categoryAliases: list[dict[str, str]] = [  # noqa: N815
        {"alias": alias.capitalize(), "resolved": category}
        for alias, category in _ALIASES.items()
        if alias != category.lower()
    ]


class JokeApiFlags(_Listing):
    """The values of `blacklistFlags`."""

    flags: tuple[str, ...] = _FLAGS


class JokeApiLanguages(_Listing):
    """The languages of jokes and errors."""

    defaultLanguage: Literal["en"] = "en"  # noqa: N815
    jokeLanguages: list[Literal["en"]] = ["en"]  # noqa: N815
    systemLanguages: list[Literal["en"]] = ["en"]  # noqa: N815
    possibleLanguages: list[dict[str, str]] = [{"code": "en", "name": "English"}]  # noqa: N815


@router.get("/categories", summary="List the categories for clients of JokeAPI")
async def list_categories() -> JokeApiCategories:
    """Return the categories of `/joke/{category}`."""
    return JokeApiCategories()


@router.get("/flags", summary="List the flags for clients of JokeAPI")
async def list_flags() -> JokeApiFlags:
    """Return the flags that `blacklistFlags` may name."""
    return JokeApiFlags()


@router.get("/languages", summary="List the languages for clients of JokeAPI")
async def list_languages() -> JokeApiLanguages:
    """Return the only language."""
    return JokeApiLanguages()


@router.get(
    "/joke/{category}",
    summary="Tell a joke to a client of JokeAPI",
    response_model=JokeApiResponse | JokeApiListResponse,
    dependencies=[Depends(require_key)],
    responses={**JOKEAPI_RESPONSES, 200: {"content": {TEXT: {}, _XML: {}, _YAML: {}}}},
)
async def tell(
    category: Annotated[
        str,
        Path(
            description="One or more, separated by commas.",
            examples=["Any", "Programming,Pun"],
            json_schema_extra={"pattern": _CATEGORY_PATTERN},
        ),
    ],
    parameters: Annotated[JokeApiParameters, Query()],
    request: Request,
    submission: SubmissionDep,
    settings: SettingsDep,
) -> Response:
    """Tell jokes with the parameters, responses and errors of JokeAPI."""
    if "idRange" in request.query_params:
        raise InputError("idRange: ids are not numbers here; GET /jokes/{id} shows a joke")
    chosen = choose_category(category, parameters)
    task = await submission.tell_task(request, parameters.to_parameters(chosen, settings.max_count))
    jokes = [JokeApiJoke.of(joke, chosen, parameters) for joke in task.result]
    if parameters.format == "txt":
        return PlainTextResponse(_TEXT_SEPARATOR.join(joke.text for joke in jokes))
    body: JokeApiResponse | JokeApiListResponse
    if parameters.amount == 1:
        body = JokeApiResponse(**jokes[0].model_dump())
    else:
        body = JokeApiListResponse(amount=len(jokes), jokes=jokes)
    if parameters.format == "json":
        return Response(body.model_dump_json(exclude_none=True), media_type=JSON)
    values = body.model_dump(exclude_none=True)
    if parameters.format == "yaml":
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


def _split(names: str) -> list[str]:
    return [name for name in _SEPARATOR.split(names) if name]
