import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx2
import pytest
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from joker.core.joke import GeneratedJoke
from joker.core.logs import JsonLines
from joker.web.middleware import HeadAsGet

LOGGER = "joker.web.middleware"

MakeClient = Callable[..., AbstractContextManager[TestClient]]
Serve = Callable[..., AbstractContextManager[str]]


@pytest.mark.parametrize("path", ["/", "/health/live", "/static/page.js", "/docs", "/nowhere"])
def test_head_is_get_without_the_body(client: TestClient, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    for name in ("Content-Type", "Content-Length", "Content-Security-Policy"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/", "text/html"),
        ("/", "application/json"),
        ("/slack", "*/*"),
        ("/joke", "*/*"),
        ("/joke", "text/event-stream"),
        ("/joke?seed=1", "text/html"),
        ("/joke/Any", "*/*"),
        ("/jokes/random", "*/*"),
    ],
)
def test_head_takes_and_drafts_no_joke(
    make_client: MakeClient, picked: GeneratedJoke, path: str, accept: str
) -> None:
    with make_client(pool_size=1, rate_limit="1/minute") as client:
        head = client.head(path, headers={"Accept": accept})
        assert (head.status_code, head.content) == (200, b"")
        assert client.get("/joke").text == f"{picked}\n"  # which would be the second one


def test_head_of_a_joke_is_checked_as_get_is(make_client: MakeClient) -> None:
    with make_client(api_keys="sesame") as client:
        assert client.head("/joke").status_code == 401
        client.headers["Authorization"] = "Bearer sesame"
        assert client.head("/joke?n=99").status_code == 422


def test_head_is_counted_by_its_route(client: TestClient) -> None:
    client.head("/health/live")
    assert 'method="HEAD",route="/health/live",status="200"} 1.0' in client.get("/metrics").text


def test_a_path_without_get_takes_no_head(client: TestClient) -> None:
    assert client.head("/v1/completions").status_code == 405


@pytest.mark.anyio
async def test_no_body_is_sent_even_where_the_server_would_pass_it_on() -> None:
    seen: list[str] = []
    sent: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["method"])
        scope["route"] = "the route"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a joke", "more_body": True})
        await send({"type": "http.response.body", "body": b"another"})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "HEAD"}
    await HeadAsGet(application)(scope, receive, send)
    assert (seen, scope) == (["GET"], {"type": "http", "method": "HEAD", "route": "the route"})
    assert [message.get("body") for message in sent] == [None, b"", b""]


@pytest.mark.integration
def test_a_connection_outlives_a_head(serve: Serve) -> None:
    with serve() as address, httpx2.Client(base_url=address) as http:
        for path in ("/", "/health/live", "/joke"):
            assert http.head(path).content == b""
            assert http.get("/health/live").status_code == 200


def read_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(JsonLines().format(r)) for r in caplog.records if r.name == LOGGER]


def test_a_request_is_one_line_with_its_job(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        taken = client.post("/generate", json={"prompt": "private"})
    (line,) = read_lines(caplog)
    assert line["request_id"] == taken.headers["X-Request-ID"]
    assert line["task_id"] == taken.json()["task_id"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/generate", 202)
    assert line["level"] == "info"
    assert "private" not in json.dumps(line)


def test_a_well_formed_id_of_the_clients_is_kept(client: TestClient) -> None:
    for given, kept in (("abc-1", True), ("a b", False), ("x" * 129, False)):
        answered = client.get("/info", headers={"X-Request-ID": given}).headers["X-Request-ID"]
        assert (answered == given) is kept
