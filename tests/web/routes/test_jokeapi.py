"""What clients of JokeAPI send, and what they read."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from fastapi.testclient import TestClient

from joker.core.joke import GeneratedJoke
from joker.generation.request import GenerationRequest
from joker.settings import load_settings
from joker.web.routes.jokeapi import JokeApiParameters, choose_category

MakeClient = Callable[..., AbstractContextManager[TestClient]]

FLAGS = ("nsfw", "religious", "political", "racist", "sexist", "explicit")


def request_of(category: str, **query: Any) -> GenerationRequest:
    """Return the request for jokes behind a client's query."""
    asked = JokeApiParameters(**query)
    chosen = choose_category(category, asked)
    request: GenerationRequest = asked.to_parameters(chosen, 10).to_request(load_settings())
    return request


def test_one_joke_is_two_parts_with_flags(make_client: MakeClient) -> None:
    with make_client(database="sqlite://") as client:
        joke = client.get("/joke/Any", params={"contains": "Why do cats"}).json()
        shown = client.get(f"/jokes/{joke['id']}").json()
    assert joke == {
        "error": False,
        "category": "Misc",
        "type": "twopart",
        "setup": shown["question"],
        "delivery": shown["answer"],
        "flags": dict.fromkeys(FLAGS, False),
        "id": shown["id"],
        "safe": True,
        "lang": "en",
    }
    assert joke["setup"].startswith("Why do cats")


def test_several_jokes_are_a_list_of_as_many(client: TestClient) -> None:
    told = client.get("/joke/Pun?amount=3").json()
    assert (told["error"], told["amount"], len(told["jokes"])) == (False, 3, 3)
    assert {joke["category"] for joke in told["jokes"]} == {"Pun"}
    assert "error" not in told["jokes"][0]


def test_no_more_jokes_than_the_server_allows(make_client: MakeClient) -> None:
    with make_client(max_count=2) as client:
        assert client.get("/joke/Any?amount=9").json()["amount"] == 2


def test_a_single_joke_is_one_text(client: TestClient) -> None:
    told = client.get("/joke/any?type=single").json()
    question, answer = told["joke"].split("\n")
    assert question.endswith("?")
    assert answer.startswith("It was told")
    assert "setup" not in told


def test_text_is_for_people(client: TestClient) -> None:
    told = client.get("/joke/Any?format=txt&amount=2")
    assert told.headers["Content-Type"] == "text/plain; charset=utf-8"
    first, second = told.text.split(f"\n\n{46 * '-'}\n\n")
    assert first.count("\n\n") == second.count("\n\n") == 1


def test_yaml_and_xml_say_what_json_does(make_client: MakeClient, picked: GeneratedJoke) -> None:
    def get(client: TestClient, format_: str, query: str = "") -> Any:
        headers = {"Authorization": f"Bearer {format_}"}  # each takes the pool's joke
        return client.get(f"/joke/Any?format={format_}{query}", headers=headers)

    with make_client(pool_size=1, api_keys="json,yaml,xml") as client:
        told = get(client, "json").json()
        as_yaml, as_xml = get(client, "yaml"), get(client, "xml")
        two = ElementTree.fromstring(get(client, "xml", "&amount=2").content)
        hostile = get(client, "xml", "&contains=Why%01%EF%BF%BF%3Cb%3E").content
    assert told["setup"] == picked.question
    assert as_yaml.headers["Content-Type"] == "application/yaml"
    assert yaml.safe_load(as_yaml.text) == told
    assert as_xml.headers["Content-Type"] == "application/xml"
    root = ElementTree.fromstring(as_xml.content)
    assert (root.tag, root.findtext("error"), root.findtext("flags/nsfw")) == (
        "data",
        "false",
        "false",
    )
    assert [child.tag for child in root] == list(told)
    assert root.findtext("setup") == told["setup"]
    assert (two.findtext("amount"), len(two.findall("jokes/setup"))) == ("2", 2)
    assert "<b>" in (ElementTree.fromstring(hostile).findtext("setup") or "")


def test_a_category_with_topics_asks_for_one_of_them() -> None:
    prompts = {request_of("Spooky").prompt for _ in range(60)}
    assert {"ghost", "vampire"} < prompts
    assert "" not in prompts
    assert request_of("Misc").prompt == request_of("pun").prompt == request_of("Any").prompt == ""


def test_one_of_several_categories_is_chosen_by_any_of_its_names() -> None:
    asked = JokeApiParameters()
    chosen = {choose_category("coding,halloween+CHRISTMAS-pun", asked) for _ in range(80)}
    assert chosen == {"Programming", "Spooky", "Christmas", "Pun"}


def test_what_a_joke_contains_overrides_the_category(client: TestClient) -> None:
    assert request_of("Spooky", contains=" cats ").prompt == "cats"
    assert client.get("/joke/Spooky?contains=cats").json()["category"] == "Misc"
    assert client.get("/joke/Spooky").json()["category"] == "Spooky"


def test_what_a_joke_contains_is_looked_for_in_the_pool(
    make_client: MakeClient, picked: GeneratedJoke
) -> None:
    with make_client(pool_size=1) as client:
        told = client.get("/joke/Any?contains=LAMP&amount=2").json()
    assert told["jokes"][0]["setup"] == picked.question
    assert told["jokes"][1]["setup"].startswith("LAMP number")


def test_flags_of_the_blacklist_are_withheld() -> None:
    assert request_of("Any", blacklistFlags="religious,nsfw").exclude_categories == (
        "nsfw",
        "religious",
    )


@pytest.mark.parametrize("value", ["", "true"])
def test_safe_mode_withholds_whatever_has_a_flag(client: TestClient, value: str) -> None:
    assert "political" in request_of("Any", **{"safe-mode": value}).exclude_categories
    assert request_of("Any", **{"safe-mode": "false"}).exclude_categories == ()
    asked = JokeApiParameters.model_validate({"safe-mode": value})
    assert {choose_category("Dark,Pun", asked) for _ in range(20)} == {"Pun"}
    refused = client.get("/joke/Dark", params={"safe-mode": value})
    assert (refused.status_code, refused.json()["code"]) == (400, 106)
    assert client.get("/joke/Dark").json()["safe"] is False


def test_a_flagged_joke_says_so(client: TestClient) -> None:
    told = client.get("/joke/Any", params={"contains": "Why did the senator"}).json()
    assert told["flags"] == dict.fromkeys(FLAGS, False) | {"political": True}
    assert told["safe"] is False


def test_bots_find_what_their_menus_list(make_client: MakeClient) -> None:
    with make_client(api_keys="sesame") as client:
        lists = [client.get(path).json() for path in ("/categories", "/flags", "/languages")]
    for one in lists:
        assert (one.pop("error"), one.pop("timestamp") > 1.7e12) == (False, True)
    categories, flags, languages = lists
    assert categories["categories"] == [
        *("Any", "Misc", "Programming", "Dark", "Pun", "Spooky", "Christmas"),
    ]
    assert {"alias": "Coding", "resolved": "Programming"} in categories["categoryAliases"]
    for known in (*categories["categories"], *(a["alias"] for a in categories["categoryAliases"])):
        assert choose_category(known, JokeApiParameters())
    assert flags == {"flags": list(FLAGS)}
    assert languages == {
        "defaultLanguage": "en",
        "jokeLanguages": ["en"],
        "systemLanguages": ["en"],
        "possibleLanguages": [{"code": "en", "name": "English"}],
    }


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/joke/Knock", "there is no category 'Knock'"),
        ("/joke/Pun,Knock", "there is no category"),
        ("/joke/,", "there is no category"),
        ("/joke/Any?amount=0", "amount"),
        ("/joke/Any?format=csv", "format"),
        ("/joke/Any?lang=de", "lang"),
        ("/joke/Any?blacklistFlags=nsfw,rude", "there is no flag 'rude'"),
        ("/joke/Any?idRange=1-5", "ids are not numbers"),
        ("/joke/Any?contains=fail", "5 attempts"),
        ("/joke/Any?contains=" + 500 * "a", "characters in prompt"),
    ],
)
def test_errors_have_jokeapis_shape(client: TestClient, path: str, reason: str) -> None:
    refused = client.get(path)
    error = refused.json()
    assert refused.status_code == 400
    assert reason in error["additionalInfo"]
    assert error["causedBy"] == [error["additionalInfo"]]
    assert error["timestamp"] > 1.7e12
    assert (error["error"], error["internalError"], error["code"]) == (True, False, 106)
    assert error["message"] == "No matching joke found"


def test_other_errors_keep_their_status(make_client: MakeClient) -> None:
    key = secrets.token_hex()  # Redis may remember other tests' clients
    with make_client(api_keys=(key,), rate_limit="1/hour", deadline_seconds=0.05) as client:
        keyless = client.get("/joke/Any")
        client.headers["Authorization"] = f"Bearer {key}"
        late = client.get("/joke/Any?contains=hang")
        limited = client.get("/joke/Any")
    assert (keyless.status_code, keyless.json()["code"]) == (401, 100)
    assert (late.status_code, late.json()["internalError"]) == (502, True)
    assert (limited.status_code, limited.json()["code"]) == (429, 101)
    assert int(limited.headers["Retry-After"]) > 0
