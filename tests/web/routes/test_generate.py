import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from joker.core.errors import MemoryFullError
from joker.jobs.queue import MEMORY_FULL_MESSAGE

MakeClient = Callable[..., AbstractContextManager[TestClient]]
Serve = Callable[..., AbstractContextManager[str]]

WAIT = {"Prefer": "wait=30"}


def read_events(lines: Iterator[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the id, name and data of server-sent events."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])
            fields = {}


def test_a_job_is_taken_in_and_told(client: TestClient) -> None:
    taken = client.post("/generate", json={"textprompt": "Why do cats", "seed": 7})
    task_id = taken.json()["task_id"]
    assert (taken.status_code, taken.headers["Location"]) == (202, f"/generate/{task_id}")
    names = [name for _, name, _ in read_events(follow(client, task_id))]
    assert names[-1] == "state"
    task = client.get(f"/generate/{task_id}").json()
    assert (task["state"], task["error"], task["seed"]) == ("SUCCESS", None, 7)
    assert task["result"][0]["question"] == "Why do cats number 7?"


def follow(client: TestClient, task_id: str, **headers: str) -> Iterator[str]:
    response = client.get(f"/generate/{task_id}/events", headers=headers)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    return iter(response.text.splitlines())


def test_waiting_answers_with_the_jokes(client: TestClient) -> None:
    told = client.post("/generate", json={"prompt": "Why", "n": 3}, headers=WAIT)
    assert (told.status_code, told.headers["Preference-Applied"]) == (200, "wait=30")
    assert len({joke["answer"] for joke in told.json()["result"]}) == 3


def test_a_failure_is_a_state_with_its_reason(client: TestClient) -> None:
    task = client.post("/generate", json={"prompt": "fail"}, headers=WAIT).json()
    assert (task["state"], task["refused"], task["result"]) == ("FAILURE", True, [])
    assert "5 attempts" in task["error"]


def test_without_a_body_the_question_is_invented(client: TestClient) -> None:
    assert client.post("/generate", json={}, headers=WAIT).json()["state"] == "SUCCESS"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"prompt": "a", "textprompt": "b"}, "textprompt"),
        ({"promt": "a"}, "promt"),
        ({"n": 0}, "n"),
        ({"n": 11}, "(n)"),
        ({"n": "many"}, "n"),
        ({"n": True}, "n"),
        ({"top_p": True}, "top_p"),
        ({"safe": 0}, "safe"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"temperature": 6}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": True}, "seed"),
        ({"top_k": -1}, "top_k"),
        ({"max_new_tokens": 100_000}, "max_new_tokens"),
        ({"candidates": 1_000_000}, "candidates"),
        ({"stop": [""]}, "stop"),
        ({"stop": list("abcde")}, "stop"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"deadline_seconds": 1_000_000}, "deadline_seconds"),
        ({"prompt": "x" * 301}, "prompt"),
        ({"prompt": None}, "prompt"),
        ([1], "body"),
        ("text", "body"),
    ],
)
def test_what_cannot_be_used_is_named(client: TestClient, body: object, named: str) -> None:
    refused = client.post("/generate", json=body)
    assert refused.status_code == 422
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert named in refused.json()["detail"]


@pytest.mark.parametrize(
    "content", [b"{", b"", b"\xff", b'{"prompt": "\\ud800"}', b"[" * 10_000, b'{"\\ud800": 1}']
)
def test_what_is_no_json_is_a_problem(client: TestClient, content: bytes) -> None:
    refused = client.post(
        "/generate", content=content, headers={"Content-Type": "application/json"}
    )
    assert refused.status_code in (400, 422)
    assert refused.headers["Content-Type"] == "application/problem+json"


def test_an_unknown_job_is_not_found(client: TestClient) -> None:
    for answer in (
        client.get("/generate/nobody"),
        client.delete("/generate/nobody"),
        client.get("/generate/nobody/events"),
    ):
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_job_is_forgotten_after_its_time(make_client: MakeClient) -> None:
    with make_client(result_ttl_seconds=0.5) as client:
        task = client.post("/generate", json={}, headers=WAIT).json()
        while client.get(f"/generate/{task['task_id']}").status_code != 404:
            pass


def test_a_job_is_cancelled(client: TestClient) -> None:
    task_id = client.post("/generate", json={"prompt": "hang"}).json()["task_id"]
    assert client.delete(f"/generate/{task_id}").json()["state"] == "REVOKED"
    assert client.get(f"/generate/{task_id}").json()["state"] == "REVOKED"


def test_a_stream_goes_on_behind_the_last_event_seen(client: TestClient) -> None:
    task = client.post("/generate", json={"n": 2}, headers=WAIT).json()
    events = list(read_events(follow(client, task["task_id"])))
    seen = events[1][0]
    rest = list(read_events(follow(client, task["task_id"], **{"Last-Event-ID": seen})))
    assert rest == events[2:]
    jokes = [data for _, name, data in events if name == "joke"]
    assert [joke["index"] for joke in jokes] == [0, 1]
    assert jokes[0]["link"] == task["result"][0]["link"]


def test_a_made_up_event_id_is_refused(client: TestClient) -> None:
    task_id = client.post("/generate", json={}).json()["task_id"]
    refused = client.get(f"/generate/{task_id}/events", headers={"Last-Event-ID": "x y"})
    assert refused.status_code == 422
    assert "last-event-id" in refused.json()["detail"]


def test_the_same_key_gives_the_same_job(client: TestClient) -> None:
    key = {"Idempotency-Key": "one"}
    first, again = (client.post("/generate", json={"n": 2}, headers=key).json() for _ in "12")
    assert first["task_id"] == again["task_id"]
    other = client.post("/generate", json={"n": 3}, headers=key)
    assert other.status_code == 422
    assert "key" in other.json()["detail"]


def test_a_full_queue_sends_away(make_client: MakeClient) -> None:
    with make_client(max_queue_size=1) as client:
        running = client.post("/generate", json={"prompt": "hang"}).headers["Location"]
        while client.get(running).json()["state"] != "STARTED":
            pass
        assert client.post("/generate", json={"prompt": "hang"}).status_code == 202
        away = client.post("/generate", json={"prompt": "hang"})
        assert (away.status_code, away.headers["Retry-After"]) == (503, "5")
        assert 'outcome_total{reason="queue_full"} 1.0' in client.get("/metrics").text


def test_a_refusal_for_want_of_memory_is_counted_as_such(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More workers would not help, so the alert that asks for them must not see it."""
    app = client.app
    assert isinstance(app, FastAPI)

    async def refuse(*_: object, **__: object) -> None:
        raise MemoryFullError(MEMORY_FULL_MESSAGE)

    monkeypatch.setattr(app.state.queue, "submit", refuse)
    away = client.post("/generate", json={})
    assert (away.status_code, away.headers["Retry-After"]) == (503, "5")
    figures = client.get("/metrics").text
    assert 'outcome_total{reason="memory_full"} 1.0' in figures
    assert 'outcome_total{reason="queue_full"} 0.0' in figures


@pytest.mark.integration
def test_events_arrive_while_the_job_goes_on(serve: Serve, broker: str | None) -> None:
    with serve(broker=broker) as address, httpx2.Client(base_url=address, timeout=60) as client:
        task_id = client.post("/generate", json={"prompt": "hang"}).json()["task_id"]
        with client.stream("GET", f"/generate/{task_id}/events") as response:
            events = read_events(response.iter_lines())
            states = [next(events)[2]["state"], next(events)[2]["state"]]
            client.delete(f"/generate/{task_id}")
            states.append(next(events)[2]["state"])
        assert states == ["PENDING", "STARTED", "REVOKED"]


@pytest.mark.integration
def test_stopping_the_server_ends_its_streams(serve: Serve, broker: str | None) -> None:
    with serve(broker=broker) as address, httpx2.Client(base_url=address, timeout=60) as client:
        task_id = client.post("/generate", json={"prompt": "hang"}).json()["task_id"]
        with client.stream("GET", f"/generate/{task_id}/events") as response:
            lines = response.iter_lines()
            assert next(lines).startswith("event: state")
    # Leaving the block stopped the server, which waits for nobody.
