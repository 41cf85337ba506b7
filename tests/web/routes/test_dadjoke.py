"""What clients of icanhazdadjoke read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from fastapi.testclient import TestClient

MakeClient = Callable[..., AbstractContextManager[TestClient]]


def test_programs_get_a_joke_at_the_root(make_client: MakeClient) -> None:
    with make_client(database="sqlite://") as client:
        told = client.get("/", headers={"Accept": "application/json"}).json()
        shown = client.get(f"/jokes/{told['id']}").json()
    assert told == {
        "id": shown["id"],
        "joke": f"{shown['question']} {shown['answer']}",
        "status": 200,
    }


def test_text_is_one_line(client: TestClient) -> None:
    told = client.get("/", headers={"Accept": "text/plain", "User-Agent": ""})
    assert told.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert told.headers["Vary"] == "Accept, User-Agent"
    assert told.text.startswith("Why did the kettle number")
    assert "\n" not in told.text


def test_curl_gets_text_unless_it_asks_for_something_else(client: TestClient) -> None:
    def get(accept: str) -> str:
        headers = {"Accept": accept, "User-Agent": "curl/8.14.1"}
        return client.get("/", headers=headers).headers["Content-Type"].partition(";")[0]

    assert [get(accept) for accept in ("*/*", "application/json", "text/html")] == [
        "text/plain",
        "application/json",
        "text/html",
    ]


def test_everybody_else_gets_the_page(client: TestClient) -> None:
    for accept in ("*/*", "text/html,application/xhtml+xml,*/*;q=0.8"):
        shown = client.get("/", headers={"Accept": accept})
        assert "<html" in shown.text
        assert shown.headers["Vary"].startswith("Accept, User-Agent")


def test_slack_gets_a_message_with_a_link(make_client: MakeClient) -> None:
    with make_client(database="sqlite://") as client:
        told = client.get("/slack").json()
        (attachment,) = told.pop("attachments")
        link = attachment["footer"].removeprefix("<").partition("|")[0]
        shown = client.get(link).json()
    assert told == {"response_type": "in_channel", "username": "joker"}
    assert attachment["text"] == attachment["fallback"]
    assert attachment["text"] == f"{shown['question']} {shown['answer']}"


def test_jokes_count_towards_the_rate_limit(make_client: MakeClient) -> None:
    with make_client(rate_limit="1/hour") as client:
        assert client.get("/slack").status_code == 200
        assert client.get("/", headers={"Accept": "text/plain"}).status_code == 429
        assert client.get("/").status_code == 200, "the page"
