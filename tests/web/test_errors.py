from http import HTTPStatus

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from joker.core.errors import QueueDownError

JSON = "application/json"
NO_OBJECT = "body: send a JSON object, with 'Content-Type: application/json'"


def test_a_problem_has_the_members_of_rfc_9457(client: TestClient) -> None:
    problem = client.post(
        "/generate", json={"n": 0, "promt": ""}, headers={"X-Request-ID": "mine"}
    ).json()
    wrong = {
        "n": "Input should be greater than or equal to 1",
        "promt": "unknown parameter; /docs lists them",
    }
    assert problem == {
        "type": "about:blank",
        "title": HTTPStatus.UNPROCESSABLE_ENTITY.phrase,
        "status": 422,
        "detail": "; ".join(f"{name}: {sentence}" for name, sentence in wrong.items()),
        "instance": "/generate",
        "request_id": "mine",
        "errors": [
            {"parameter": name, "location": "body", "detail": sentence}
            for name, sentence in wrong.items()
        ],
    }


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/no", 404), ("PUT", "/joke", 405)])
def test_a_wrong_address_is_a_problem(
    client: TestClient, method: str, path: str, status: int
) -> None:
    wrong = client.request(method, path)
    assert wrong.status_code == wrong.json()["status"] == status
    assert path in wrong.json()["detail"]


def test_a_queue_that_is_down_says_when_to_come_again_and_nothing_of_the_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = client.app
    assert isinstance(app, FastAPI)

    async def fail(*_: object, **__: object) -> None:
        raise QueueDownError("the queue's Redis at redis.internal:6379 cannot be used")

    monkeypatch.setattr(app.state.queue, "submit", fail)
    down = client.get("/joke")
    assert (down.status_code, down.headers["Retry-After"]) == (503, "5")
    assert "the queue cannot be reached; try again" in down.json()["detail"]
    assert "redis" not in down.text.lower()
    assert "redis.internal:6379" in caplog.text, "who runs the server needs to know"


def test_a_defect_is_a_problem_without_its_secrets(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = client.app
    assert isinstance(app, FastAPI)

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(app.state.queue, "submit", fail)
    broken = client.get("/joke")
    assert broken.status_code == 500
    assert broken.headers["Content-Type"] == "application/problem+json"
    assert "secret" not in broken.text
    assert broken.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("kind", "body", "sentence"),
    [
        ("text/plain", "{}", NO_OBJECT),
        (JSON, "", NO_OBJECT),
        (JSON, "[1]", NO_OBJECT),
        (JSON, "[" * 9000, "nested too deeply or has too long a number; send plain JSON"),
        (JSON, '{"stop": "ab"}', "stop: Input should be a valid list"),
        (JSON, '{"deadline_seconds": 1e9}', "deadline_seconds: at most 60; ask for less"),
        (JSON, f'{{"{"a" * 9000}": 1}}', f"{'a' * 100}: unknown parameter; /docs lists them"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_in_words_of_http(
    client: TestClient, kind: str, body: str, sentence: str
) -> None:
    refused = client.post("/generate", content=body, headers={"Content-Type": kind})
    detail = refused.json()["detail"]
    assert detail.endswith(sentence)
    assert len(detail) < 200


@pytest.mark.parametrize(
    ("path", "asked", "sentence"),
    [
        ("completions", {"prompt": 5}, "prompt: send a string or a list"),
        ("completions", {"prompt": [7]}, "prompt.0: Input should be a valid string"),
        ("completions", {"stop": 0}, "stop: send a string or a list"),
        ("completions", {"stop": ["a"] * 5}, "stop: List should have at most 4 items"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": {}}]},
            "messages.0.content: send a string or a list",
        ),
    ],
)
def test_a_parameter_of_several_types_has_one_error(
    client: TestClient, path: str, asked: dict[str, object], sentence: str
) -> None:
    message = client.post(f"/v1/{path}", json=asked).json()["error"]["message"]
    assert message.startswith(sentence)
    assert ";" not in message
