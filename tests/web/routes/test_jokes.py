from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

MakeClient = Callable[..., AbstractContextManager[TestClient]]

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
JSON = {"Accept": "application/json"}
WAIT = {"Prefer": "wait=30"}


def tell(client: TestClient, **asked: Any) -> dict[str, Any]:
    (joke,) = client.post("/generate", json=asked, headers=WAIT).json()["result"]
    assert isinstance(joke, dict)
    return joke


def vote(client: TestClient, joke: dict[str, Any], cast: str, **headers: str) -> Any:
    return client.post(f"{joke['link']}/votes", json={"vote": cast}, headers=headers)


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jokes.sqlite'}"


@pytest.fixture
def keyed(make_client: MakeClient) -> Iterator[tuple[TestClient, list[dict[str, str]]]]:
    """Return a client of a server that knows three API keys, and a header for each of them."""
    keys = ["one", "two", "three"]
    with make_client(api_keys=",".join(keys)) as client:
        yield client, [{"Authorization": f"Bearer {key}"} for key in keys]


def test_a_link_shows_the_same_joke_whatever_server_and_model_run(
    make_client: MakeClient, database: str
) -> None:
    with make_client(database=database) as client:
        joke = tell(client, prompt="Why do cats", seed=5)
    with make_client(database=database, model="another-model") as client:
        shown = client.get(joke["link"])
        assert shown.headers["Content-Type"] == "application/json"
        assert shown.json() | {"created_at": None} == {
            **joke,
            "created_at": None,
            "votes": {"up": 0, "down": 0, "report": 0},
        }
        page = client.get(joke["link"], headers=BROWSER)
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert joke["answer"] in page.text
        assert '<span class="model">bundled</span>' in page.text
        text = client.get(joke["link"], headers={"Accept": "text/plain"}).text
        assert text == f"{joke['question']}\n{joke['answer']}\n"


def test_every_way_to_read_a_job_gives_its_jokes_the_same_id(client: TestClient) -> None:
    task = client.post("/generate", json={"n": 3}, headers=WAIT).json()
    ids = [joke["id"] for joke in task["result"]]
    assert len({*ids}) == 3
    assert client.get(f"/generate/{task['task_id']}").json() == task
    events = client.get(f"/generate/{task['task_id']}/events").text
    for joke_id in ids:
        assert re.fullmatch("[A-Za-z0-9]{12}", joke_id)
        assert events.count(f'"{joke_id}"') == 2  # once as a joke, once in the final state


@pytest.mark.parametrize("stream", [False, True])
def test_jokes_told_at_once_are_stored_once(
    make_client: MakeClient, database: str, stream: bool
) -> None:
    with make_client(database=database) as client:
        client.get("/joke", headers=JSON)
        client.post("/v1/completions", json={"n": 2, "stream": stream})
        client.get("/health/ready")
    with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT count(*), count(prompt) FROM jokes").fetchone() == (3, 0)


def test_prompts_are_stored_only_if_asked_for(make_client: MakeClient, database: str) -> None:
    with make_client(database=database, keep_prompts=True) as client:
        tell(client, prompt="Why do cats")
    with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT prompt FROM jokes").fetchone() == ("Why do cats",)


def test_a_joke_that_may_offend_is_stored_as_such(client: TestClient) -> None:
    joke = tell(client, prompt="Why are blondes stupid", safe=False)
    assert (joke["flags"], joke["safe"]) == (["sexist"], False)
    shown = client.get(joke["link"]).json()
    assert (shown["flags"], shown["safe"]) == (["sexist"], False)
    vote(client, joke, "up")
    assert client.get("/jokes/top").json()["jokes"] == []


def test_while_the_store_is_away_jokes_are_told_without_a_link(
    make_client: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with make_client(database=f"sqlite:///{tmp_path}/file/jokes.sqlite") as client:
        joke = tell(client)
        assert (joke["id"], joke["link"]) == (None, None)
        page = client.get("/joke", headers=BROWSER)
        assert page.status_code == 200
        for answer in (
            client.get("/jokes/abcdefghijkl"),
            client.get("/jokes/top"),
            client.get("/jokes/today"),
            client.post("/jokes/abcdefghijkl/votes", json={"vote": "up"}),
        ):
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert str(tmp_path) not in answer.text
        figures = client.get("/metrics").text
        assert "joker:store_up 0.0" in figures
        assert "joker:store_failures_total 0.0" not in figures


def test_a_working_store_shows_in_the_metrics(client: TestClient) -> None:
    tell(client)
    figures = client.get("/metrics").text
    assert "joker:store_up 1.0" in figures
    assert "joker:store_failures_total 0.0" in figures


@pytest.mark.parametrize("joke_id", ["x", "!!!", "é", "abcdefghijkl", "A" * 99])
def test_an_unknown_joke_is_not_found(client: TestClient, joke_id: str) -> None:
    for answer in (
        client.get(f"/jokes/{joke_id}"),
        client.post(f"/jokes/{joke_id}/votes", json={"vote": "up"}),
    ):
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert "There is no such joke" in client.get(f"/jokes/{joke_id}", headers=BROWSER).text


def test_each_client_has_one_vote_on_a_joke_the_latest(
    keyed: tuple[TestClient, list[dict[str, str]]],
) -> None:
    client, (one, two, three) = keyed
    (joke,) = client.post("/generate", json={}, headers=WAIT | one).json()["result"]
    assert vote(client, joke, "up", **one).json() == {"up": 1, "down": 0, "report": 0}
    assert vote(client, joke, "up", **one).json() == {"up": 1, "down": 0, "report": 0}
    assert vote(client, joke, "up", **two).json() == {"up": 2, "down": 0, "report": 0}
    counted = vote(client, joke, "down", **one)
    assert (counted.status_code, counted.json()) == (200, {"up": 1, "down": 1, "report": 0})
    assert "set-cookie" not in counted.headers
    assert client.get(joke["link"], headers=three).json()["votes"] == counted.json()
    assert client.post(f"{joke['link']}/votes", json={"vote": "up"}).status_code == 401


@pytest.mark.parametrize(
    ("content", "kind", "status", "said"),
    [
        (b'{"vote": "maybe"}', "application/json", 422, "vote: Input should be 'up'"),
        (b"{}", "application/json", 422, "vote"),
        (b'{"vote": "up", "twice": true}', "application/json", 422, "twice"),
        (b"{", "application/json", 422, "JSON"),
        (b"[]", "application/json", 422, "body"),
        (b"vote=maybe", "application/x-www-form-urlencoded", 422, "vote"),
        (b"", "application/x-www-form-urlencoded", 422, "vote"),
        (b'{"vote": "up"}', "text/plain", 415, "application/json"),
    ],
)
def test_what_is_no_vote_is_refused(
    client: TestClient, content: bytes, kind: str, status: int, said: str
) -> None:
    joke = tell(client)
    path, headers = f"{joke['link']}/votes", {"Content-Type": kind}
    refused = client.post(path, content=content, headers=headers)
    assert refused.status_code == status
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert said in refused.json()["detail"]


def test_votes_are_limited_apart_from_jokes(make_client: MakeClient) -> None:
    with make_client(rate_limit="2/hour") as client:
        joke = tell(client)
        assert [vote(client, joke, cast).status_code for cast in ("up", "down")] == [200, 200]
        refused = vote(client, joke, "up")
        assert refused.status_code == 429
        assert refused.headers["RateLimit-Policy"] == '"votes";q=2;w=3600'
        assert "votes are limited to 2 in 3600 seconds" in refused.json()["detail"]
        assert client.get("/joke").status_code == 200


def test_a_form_votes_and_leads_back_to_the_joke(client: TestClient) -> None:
    joke = tell(client)
    voted = client.post(f"{joke['link']}/votes", data={"vote": "up"}, follow_redirects=False)
    assert (voted.status_code, voted.headers["Location"]) == (303, f"{joke['link']}#punchline")
    assert client.get(joke["link"]).json()["votes"]["up"] == 1


def test_a_form_leads_from_a_reported_joke_to_thanks_until_the_report_is_taken_back(
    keyed: tuple[TestClient, list[dict[str, str]]],
) -> None:
    client, (ann, bob, *_) = keyed
    (joke,) = client.post("/generate", json={}, headers=WAIT | ann).json()["result"]
    for key, given in ((ann, "report"), (bob, "up")):
        thanks = client.post(f"{joke['link']}/votes", data={"vote": given}, headers=key)
        assert (thanks.url.path, thanks.status_code) == (f"{joke['link']}/reported", 200)
        assert "Thank you. This joke was reported" in thanks.text
        assert joke["question"] not in thanks.text
    vote(client, joke, "up", **ann)
    assert client.get(f"{joke['link']}/reported", headers=ann).url.path == joke["link"]
    assert client.get("/jokes/nothing-here/reported", headers=ann).status_code == 404


def test_another_site_cannot_vote_with_its_visitors_browsers(client: TestClient) -> None:
    joke = tell(client)
    refused = client.post(
        f"{joke['link']}/votes", data={"vote": "up"}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert refused.status_code == 403
    assert client.get(joke["link"]).json()["votes"]["up"] == 0


def test_the_best_jokes_come_first(keyed: tuple[TestClient, list[dict[str, str]]]) -> None:
    client, keys = keyed
    answer = client.post("/generate", json={"n": 3}, headers=WAIT | keys[0])
    good, best, bad = answer.json()["result"]
    for key in keys:
        vote(client, best, "up", **key)
        vote(client, bad, "down", **key)
    vote(client, good, "up", **keys[0])
    top = client.get("/jokes/top", headers=keys[0]).json()["jokes"]
    assert [joke["id"] for joke in top] == [best["id"], good["id"]]
    params: dict[str, str | int] = {"limit": 1, "period": "day"}
    (first,) = client.get("/jokes/top", params=params, headers=keys[0]).json()["jokes"]
    assert first["id"] == best["id"]
    page = client.get("/jokes/top", headers=BROWSER | keys[0]).text
    assert "The best jokes of the week." in page
    assert page.index(best["question"]) < page.index(good["question"])


def test_an_empty_list_says_so_to_people(client: TestClient) -> None:
    page = client.get("/jokes/top", headers=BROWSER)
    assert page.status_code == 200
    assert "No liked jokes in this period yet." in page.text


@pytest.mark.parametrize("query", ["period=year", "limit=0", "limit=101"])
def test_a_list_that_cannot_be_had_is_refused(client: TestClient, query: str) -> None:
    assert client.get(f"/jokes/top?{query}").status_code == 422


def test_the_joke_of_the_day_is_one_that_somebody_likes(client: TestClient) -> None:
    assert client.get("/jokes/today").status_code == 404
    joke = tell(client)
    vote(client, joke, "up")
    for _ in range(2):
        assert client.get("/jokes/today").json()["id"] == joke["id"]


def test_a_reported_joke_is_hidden_until_the_report_is_taken_back(client: TestClient) -> None:
    joke = tell(client, prompt="Why do cats")
    vote(client, joke, "up")
    assert vote(client, joke, "report").json() == {"up": 0, "down": 0, "report": 1}
    assert client.get("/jokes/top").json()["jokes"] == []
    assert client.get("/jokes/today").status_code == 404
    hidden = client.get(joke["link"], headers=BROWSER)
    assert hidden.status_code == 404
    assert "This joke was reported and is hidden" in hidden.text
    assert joke["answer"] not in hidden.text
    vote(client, joke, "up")
    assert client.get(joke["link"]).status_code == 200
