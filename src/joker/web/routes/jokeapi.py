"""``/joke/{category}``: jokes for clients of JokeAPI (version 2), which change only the host.

``/categories``, ``/flags`` and ``/languages`` say what they may ask for.

`joker.web.errors` sends errors in its shape. ``docs/api.md`` says how categories, flags and ids
differ from JokeAPI's.
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
from joker.web.dependencies import TheSettings, TheSubmission
from joker.web.errors import JOKEAPI_RESPONSES
from joker.web.html import JSON, TEXT
from joker.web.schemas import JokeParameters, LinkedJoke
from joker.web.security import require_key

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
_BETWEEN_TEXTS = f"\n\n{46 * '-'}\n\n"

router = APIRouter(tags=["jokes"])


def _list_of(words: tuple[str, ...]) -> str:
    """Return the pattern of a list of words."""
    one = "|".join(words)
    return f"^({one})([,+-]({one}))*$"


_CATEGORY_PATTERN = _list_of(_CATEGORIES)


class Flags(BaseModel):
    """What moderation flags a joke for, offensive or not."""

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
        default="twopart", description="`single` joins question and answer in one text."
    )
    amount: int = Field(
        default=1, ge=1, description="Number of jokes; the server's limit applies if it is lower."
    )
    contains: str = Field(
        default="", description="A topic or the start of a question; then no category applies."
    )
    safe_mode: str | None = Field(
        default=None,
        alias="safe-mode",
        description="If present, jokes with any flag are withheld, too. Offensive ones always are.",
    )
    blacklist_flags: str = Field(
        default="",
        alias="blacklistFlags",
        description=f"Flags to withhold, separated by commas: {', '.join(_FLAGS)}.",
        json_schema_extra={"pattern": _list_of(_FLAGS) + "|^$"},
    )
    format: Literal["json", "xml", "yaml", "txt"] = "json"
    lang: Literal["en"] = Field(default="en", description="The language; the model speaks one.")

    @field_validator("blacklist_flags")
    @classmethod
    def _are_flags(cls, value: str) -> str:
        for name in _split(value):
            if name not in _FLAGS:
                raise ValueError(f"there is no flag {name[:20]!r}; choose {', '.join(_FLAGS)}")
        return value

    @property
    def is_safe(self) -> bool:
        """Whether only jokes without flags are wanted."""
        return self.safe_mode not in (None, "false")

    def to_parameters(self, category: JokeApiCategory, most: int) -> JokeParameters:
        """Return the parameters of `GET /joke` that ask for the same.

        Args:
            category: What the jokes are about, unless they are to contain something.
            most: Maximum number of jokes.
        """
        topics = _TOPICS.get(category, ("",))
        excluded = CATEGORIES if self.is_safe else tuple(_split(self.blacklist_flags))
        return JokeParameters(
            prompt=self.contains.strip() or secrets.choice(topics),
            n=min(self.amount, most),
            exclude_categories=excluded,
        )


def choose_category(names: str, asked: JokeApiParameters) -> JokeApiCategory:
    """Return one of the categories that a path names; in JokeAPI's way, case does not matter.

    Raises:
        InputError: If there is no such category.
        GenerationError: If only dark jokes are wanted, and only safe ones.
    """
    categories = [_ALIASES.get(name.lower()) for name in _split(names)]
    known = [category for category in categories if category]
    if not known or len(known) < len(categories):
        raise InputError(f"there is no category {names[:60]!r}; choose {', '.join(_CATEGORIES)}")
    if asked.is_safe:
        known = [category for category in known if category != "Dark"]
    if not known:
        raise GenerationError("dark jokes are not told in safe-mode; choose another category")
    return "Misc" if asked.contains.strip() else secrets.choice(known)


class JokeApiJoke(BaseModel):
    """A joke in JokeAPI's shape."""

    category: JokeApiCategory = Field(
        description="The category that was asked for; `Misc` for `Any`."
    )
    type: Literal["single", "twopart"]
    joke: str | None = Field(default=None, description="The whole joke, if `type` is `single`.")
    setup: str | None = Field(default=None, examples=["Why did the kettle blush?"])
    delivery: str | None = Field(default=None, examples=["It saw the teapot's bare spout."])
    flags: Flags
    id: str | None = Field(
        description="The joke's id at `/jokes/{id}`, a text; missing while jokes cannot be stored."
    )
    safe: bool = Field(description="Whether it has no flag and was not asked for as `Dark`.")
    lang: Literal["en"] = "en"

    @classmethod
    def of(cls, joke: LinkedJoke, category: JokeApiCategory, asked: JokeApiParameters) -> Self:
        """Describe a joke."""
        parts: dict[str, Any] = {"setup": joke.question, "delivery": joke.answer}
        if asked.type == "single":
            parts = {"joke": f"{joke.question}\n{joke.answer}"}
        return cls(
            category="Misc" if category == "Any" else category,
            type=asked.type,
            flags=Flags.model_validate({name: name in joke.flags for name in _FLAGS}),
            id=joke.id,
            safe=not joke.flags and category != "Dark",
            **parts,
        )

    @property
    def text(self) -> str:
        """Its text as JokeAPI formats it."""
        return self.joke or f"{self.setup}\n\n{self.delivery}"


class JokeApiAnswer(JokeApiJoke):
    """One joke."""

    error: Literal[False] = False


class JokeApiAnswers(BaseModel):
    """Several jokes."""

    error: Literal[False] = False
    amount: int
    jokes: list[JokeApiJoke]


class _List(BaseModel):
    error: Literal[False] = False
    timestamp: int = Field(
        default_factory=lambda: time.time_ns() // 1_000_000,
        description="In milliseconds since 1970.",
    )


class JokeApiCategories(_List):
    """The categories that may be asked for."""

    categories: tuple[JokeApiCategory, ...] = _CATEGORIES
    categoryAliases: list[dict[str, str]] = [  # noqa: N815
        {"alias": alias.capitalize(), "resolved": category}
        for alias, category in _ALIASES.items()
        if alias != category.lower()
    ]


class JokeApiFlags(_List):
    """The flags that may be withheld."""

    flags: tuple[str, ...] = _FLAGS


class JokeApiLanguages(_List):
    """The languages of jokes and errors."""

    defaultLanguage: Literal["en"] = "en"  # noqa: N815
    jokeLanguages: list[Literal["en"]] = ["en"]  # noqa: N815
    systemLanguages: list[Literal["en"]] = ["en"]  # noqa: N815
    possibleLanguages: list[dict[str, str]] = [{"code": "en", "name": "English"}]  # noqa: N815


@router.get("/categories", summary="List the categories to a client of JokeAPI")
async def list_categories() -> JokeApiCategories:
    """Return the categories of `/joke/{category}`."""
    return JokeApiCategories()


@router.get("/flags", summary="List the flags to a client of JokeAPI")
async def list_flags() -> JokeApiFlags:
    """Return the flags that `blacklistFlags` may name."""
    return JokeApiFlags()


@router.get("/languages", summary="List the languages to a client of JokeAPI")
async def list_languages() -> JokeApiLanguages:
    """Return the only language."""
    return JokeApiLanguages()


@router.get(
    "/joke/{category}",
    summary="Tell a joke to a client of JokeAPI",
    response_model=JokeApiAnswer | JokeApiAnswers,
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


def _split(names: str) -> list[str]:
    return [name for name in _SEPARATOR.split(names) if name]
