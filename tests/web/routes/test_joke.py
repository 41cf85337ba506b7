import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from joker.core.joke import GeneratedJoke

MakeClient = Callable[..., AbstractContextManager[TestClient]]
Serve = Callable[..., AbstractContextManager[str]]

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_curl_gets_plain_text(client: TestClient) -> None:
    told = client.get("/joke", params={"prompt": "Why do cats", "seed": 3, "n": 2})
    assert told.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert told.text == (
        "Why do cats number 3?\nIt was told with seed 3.\n\n"
        "Why do cats number 4?\nIt was told with seed 4.\n"
    )


def test_programs_get_json(client: TestClient) -> None:
    told = client.get("/joke", headers={"Accept": "application/json"})
    assert told.json()["state"] == "SUCCESS"
    assert told.headers["Vary"] == "Accept"


def events_of(text: str) -> list[tuple[str, Any]]:
    lines = [part.splitlines() for part in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data[6:])) for name, data in lines]


def test_a_stream_has_the_jokes_as_they_are_told(client: TestClient) -> None:
    asked = "/joke?prompt=Why+do+cats&seed=3&n=2&candidates=1"
    streamed = client.get(asked, headers={"Accept": "text/event-stream"})
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    assert streamed.headers["X-Accel-Buffering"] == "no"
    assert streamed.headers["Vary"] == "Accept"
    events = events_of(streamed.text)
    jokes = [data for name, data in events if name == "joke"]
    assert [(joke["index"], joke["question"]) for joke in jokes] == [
        (0, "Why do cats number 3?"),
        (1, "Why do cats number 4?"),
    ]
    name, last = events[-1]
    assert (name, last["state"]) == ("state", "SUCCESS")
    assert [joke["answer"] for joke in last["result"]] == [joke["answer"] for joke in jokes]


def test_a_stream_begins_with_the_jokes_of_the_pool(
    make_client: MakeClient, picked: GeneratedJoke
) -> None:
    headers = {"Accept": "text/event-stream"}
    with make_client(pool_size=1, api_keys="one,two") as client:
        one, two = ({**headers, "Authorization": f"Bearer {key}"} for key in ("one", "two"))
        alone = events_of(client.get("/joke", headers=one).text)
        both = events_of(client.get("/joke?n=2", headers=two).text)
    (_, joke), (_, task) = alone
    assert joke | asdict(replace(picked, model="bundled")) == joke
    assert (task["state"], task["task_id"]) == ("SUCCESS", None)
    assert task["result"] == [{name: joke[name] for name in joke if name != "index"}]
    assert [data["index"] for name, data in both if name == "joke"] == [0, 1]
    last = both[-1][1]
    assert last["task_id"] is not None
    assert [joke["picked"] for joke in last["result"]] == [True, False]


def test_a_silent_stream_is_kept_open(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joker.web.streams._KEEP_ALIVE_SECONDS", 0.01)
    asked: dict[str, str | float] = {"prompt": "hang", "deadline_seconds": 0.5}
    told = client.get("/joke", params=asked, headers={"Accept": "text/event-stream"}).text
    assert ": ping\n\n: ping\n\n" in told
    assert '"state": "FAILURE"' in told.rpartition("event: state")[2]


def test_who_asks_for_any_joke_in_words_gets_one_of_the_pool(
    make_client: MakeClient, picked: GeneratedJoke
) -> None:
    with make_client(pool_size=1) as client:
        assert client.get("/joke?prompt=tell+me+a+joke").text == f"{picked}\n"


def test_a_prompt_gets_a_joke_of_the_pool_that_fits_and_then_a_draft(
    make_client: MakeClient, picked: GeneratedJoke
) -> None:
    def ask(client: TestClient, key: str, **query: str | int) -> Any:
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        return client.get("/joke", params=query, headers=headers).json()["result"]

    with make_client(pool_size=1, api_keys="one,two,three") as client:
        jokes = ask(client, "one", prompt="lamps", n=2)
        assert [joke["picked"] for joke in jokes] == [True, False]
        assert jokes[0] | asdict(replace(picked, model="bundled")) == jokes[0]
        assert jokes[1]["question"].startswith("lamps number")
        (again,) = ask(client, "one", prompt="lamps")
        assert not again["picked"]
        for wish in ({"prompt": picked.question}, {"prompt": "lamps", "effort": 1}):
            assert not ask(client, "two", **wish)[0]["picked"]
        assert ask(client, "two", prompt="why did the lamp")[0]["picked"]
        assert not ask(client, "three", prompt="candles")[0]["picked"]


def test_a_stream_that_cannot_begin_is_an_error(client: TestClient) -> None:
    refused = client.get("/joke?n=99", headers={"Accept": "text/event-stream"})
    assert refused.status_code == 422
    assert refused.headers["Content-Type"] == "application/problem+json"


def test_browsers_get_the_page_with_the_joke_as_text(client: TestClient) -> None:
    told = client.get("/joke", params={"prompt": "hostile"}, headers={"Accept": BROWSER})
    assert told.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<img" not in told.text
    assert "&lt;img src=" in told.text


def test_only_what_was_drafted_can_be_tried_harder(
    make_client: MakeClient, picked: GeneratedJoke
) -> None:
    with make_client(pool_size=1) as client:
        for question, offered in ((picked.question, False), ("lamp number", True)):
            told = client.get("/joke?prompt=lamp", headers={"Accept": BROWSER}).text
            assert question in told
            (button,) = re.findall('<button id="harder"[^>]*>', told)
            assert (" hidden" not in button) is offered


def test_the_form_as_a_browser_sends_it_is_understood(client: TestClient) -> None:
    told = client.get("/joke?prompt=&n=1&safe=false", headers={"Accept": BROWSER})
    assert told.status_code == 200
    assert 'value="false" checked' in told.text


def test_a_browser_sees_what_went_wrong(client: TestClient) -> None:
    refused = client.get("/joke?n=99", headers={"Accept": BROWSER})
    assert refused.status_code == 422
    assert refused.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "at most 10" in refused.text


def test_a_request_without_an_acceptable_joke_is_a_problem_of_its_own(client: TestClient) -> None:
    refused = client.get("/joke", params={"prompt": "fail"})
    assert refused.status_code == 422
    assert "Retry-After" not in refused.headers
    problem = refused.json()
    assert problem["title"] == "Joke Refused"
    assert "5 attempts" in problem["detail"]
    assert "Change the prompt" in client.get(problem["type"]).text


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_refusal_names_the_prompt_if_it_is_withheld_itself(
    client: TestClient, accept: str
) -> None:
    refused = client.get("/joke?prompt=What+genocidal+thing", headers={"Accept": accept})
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (422, "/problems/refused")
    (wrong,) = problem["errors"]
    assert (wrong["parameter"], wrong["location"]) == ("prompt", "query")
    chat = {"messages": [{"role": "user", "content": "What genocidal thing"}]}
    error = client.post("/v1/chat/completions", json=chat).json()["error"]
    assert (error["code"], error["param"]) == ("joke_refused", "messages")
    allowed = client.get("/joke?prompt=What+genocidal+thing&safe=false")
    assert allowed.status_code == 200


def test_a_joke_that_is_late_is_not_refused(client: TestClient) -> None:
    late = client.get("/joke", params={"prompt": "hang", "deadline_seconds": 0.05})
    assert late.json()["type"] == "about:blank"


def test_a_joke_past_its_own_deadline_is_an_error(client: TestClient) -> None:
    late = client.get("/joke", params={"prompt": "hang", "deadline_seconds": 0.05})
    assert late.status_code == 502
    assert "within 0.05 seconds" in late.json()["detail"]


def test_a_joke_past_its_deadline_is_an_error(make_client: MakeClient) -> None:
    with make_client(deadline_seconds=0.05) as client:
        assert client.get("/joke", params={"prompt": "hang"}).status_code == 502


@pytest.mark.integration
def test_a_client_who_leaves_has_its_job_cancelled(serve: Serve, broker: str | None) -> None:
    with serve(broker=broker) as address, httpx2.Client(base_url=address, timeout=60) as client:
        with pytest.raises(httpx2.ReadTimeout):
            client.get("/joke", params={"prompt": "hang"}, timeout=1)
        while 'outcome_total{reason="revoked"} 1.0' not in client.get("/metrics").text:
            pass


def test_withholding_nothing_and_something_contradict_each_other(client: TestClient) -> None:
    assert client.get("/joke?safe=true&exclude_categories=dark").status_code == 200
    response = client.get("/joke?safe=false&exclude_categories=dark")
    assert response.status_code == 422
    assert "cannot be combined" in response.json()["detail"]
