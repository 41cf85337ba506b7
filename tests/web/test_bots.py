"""The bots of `examples` and of the documentation, as processes, against stubs of their services.

The stubs speak HTTP and sign as Discord and Slack do; the jokes come from a real server.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx2
import pytest
from nacl.signing import SigningKey

from tests.docs.pages import blocks

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
KEY = SigningKey.generate()
SECRET = "a signing secret"
REFUSAL = "Sorry, no joke on this worked out; try other words."
NOWHERE = "http://127.0.0.1:1"
PATIENCE_SECONDS = 60

Serve = Callable[..., AbstractContextManager[str]]


class Call(NamedTuple):
    """A call that a service received."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Service(NamedTuple):
    """A stub of Discord's or Slack's API."""

    address: str
    calls: queue.Queue[Call]

    def next_call(self) -> Call:
        return self.calls.get(timeout=PATIENCE_SECONDS)


@pytest.fixture
def service() -> Iterator[Service]:
    """Return a server that accepts everything and remembers it."""
    calls: queue.Queue[Call] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def handle_call(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.put(Call(self.command, self.path, dict(self.headers), json.loads(body)))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_PUT = do_PATCH = handle_call  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Service(f"http://127.0.0.1:{server.server_port}", calls)
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def jokes(serve: Serve) -> Iterator[str]:
    """Return the address of a server of jokes."""
    with serve() as address:
        yield address


@contextmanager
def run_bot(name: str, **variables: str) -> Iterator[httpx2.Client]:
    """Start a bot and return a client of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bot = subprocess.Popen(
        [sys.executable, ROOT / "examples" / name],
        env=os.environ | {"PORT": str(port), **variables},
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert bot.poll() is None, "the bot has ended"
                time.sleep(0.05)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS) as client:
            yield client
    finally:
        bot.terminate()
        bot.wait(PATIENCE_SECONDS)


def run_discord_bot(service: Service, jokes: str) -> AbstractContextManager[httpx2.Client]:
    return run_bot(
        "discord_bot.py",
        DISCORD_API=service.address,
        DISCORD_APP_ID="17",
        DISCORD_PUBLIC_KEY=KEY.verify_key.encode().hex(),
        DISCORD_TOKEN="token",
        JOKES_URL=jokes,
    )


@pytest.fixture
def discord_bot(service: Service, jokes: str) -> Iterator[httpx2.Client]:
    with run_discord_bot(service, jokes) as client:
        yield client


def interact(bot: httpx2.Client, interaction: Any, key: SigningKey = KEY) -> httpx2.Response:
    """Send a bot what Discord sends."""
    body = json.dumps(interaction).encode()
    timestamp = str(int(time.time()))
    signature = key.sign(timestamp.encode() + body).signature.hex()
    headers = {"X-Signature-Ed25519": signature, "X-Signature-Timestamp": timestamp}
    return bot.post("/", content=body, headers=headers)


def use_command(bot: httpx2.Client, about: str | None = None) -> Any:
    options = [{"name": "about", "type": 3, "value": about}] if about else []
    data = {"name": "joke", **({"options": options} if options else {})}
    return interact(bot, {"type": 2, "token": "once", "data": data}).json()


def test_discords_command_is_registered_and_told(
    discord_bot: httpx2.Client, service: Service
) -> None:
    registered = service.next_call()
    assert (registered.method, registered.path) == ("PUT", "/applications/17/commands")
    assert registered.headers["Authorization"] == "Bot token"
    assert registered.headers["User-Agent"].startswith("DiscordBot (")
    assert [command["name"] for command in registered.body] == ["joke"]

    assert interact(discord_bot, {"type": 1}).json() == {"type": 1}
    assert use_command(discord_bot, "Why do cats") == {"type": 5}
    told = service.next_call()
    assert (told.method, told.path) == ("PATCH", "/webhooks/17/once/messages/@original")
    question, answer = told.body["content"].split("\n")
    assert question.startswith("Why do cats number")
    assert answer.startswith("||It was told with seed")
    assert told.body["allowed_mentions"] == {"parse": []}

    assert use_command(discord_bot) == {"type": 5}
    assert service.next_call().body["content"].startswith("Why did the kettle")
    assert use_command(discord_bot, "fail") == {"type": 5}
    assert service.next_call().body["content"] == REFUSAL


def test_a_bot_for_discord_serves_discord_only(
    discord_bot: httpx2.Client, service: Service
) -> None:
    service.next_call()
    assert interact(discord_bot, {"type": 1}, SigningKey.generate()).status_code == 401
    assert discord_bot.post("/", json={"type": 1}).status_code == 401
    forged = {"X-Signature-Ed25519": "no hex", "X-Signature-Timestamp": "1"}
    assert discord_bot.post("/", json={"type": 1}, headers=forged).status_code == 401
    assert service.calls.empty()


@pytest.fixture
def slack_bot(jokes: str) -> Iterator[httpx2.Client]:
    with run_bot("slack_bot.py", SLACK_SIGNING_SECRET=SECRET, JOKES_URL=jokes) as client:
        yield client


def command(
    bot: httpx2.Client, service: Service, text: str, *, secret: str = SECRET, age_seconds: int = 0
) -> httpx2.Response:
    """Send a bot what Slack sends."""
    body = urlencode({"command": "/joke", "text": text, "response_url": f"{service.address}/here"})
    timestamp = str(int(time.time()) - age_seconds)
    digest = hmac.new(secret.encode(), f"v0:{timestamp}:{body}".encode(), hashlib.sha256)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": timestamp,
        "X-Slack-Signature": f"v0={digest.hexdigest()}",
    }
    return bot.post("/", content=body, headers=headers)


def test_slacks_command_is_told(slack_bot: httpx2.Client, service: Service) -> None:
    assert command(slack_bot, service, "Why do cats").json() == {"response_type": "in_channel"}
    told = service.next_call()
    assert (told.path, told.body["response_type"]) == ("/here", "in_channel")
    assert told.body["text"].startswith("Why do cats number")
    command(slack_bot, service, "hostile")
    assert "&lt;img" in service.next_call().body["text"]
    command(slack_bot, service, "fail")
    refused = service.next_call().body
    assert refused["response_type"] == "ephemeral"
    assert refused["text"] == REFUSAL


def test_bots_say_that_the_server_is_down(service: Service) -> None:
    with run_bot("slack_bot.py", SLACK_SIGNING_SECRET=SECRET, JOKES_URL=NOWHERE) as bot:
        command(bot, service, "")
        assert "cannot be reached" in service.next_call().body["text"]
    with run_discord_bot(service, NOWHERE) as bot:
        service.next_call()
        use_command(bot)
        assert "cannot be reached" in service.next_call().body["content"]


def test_a_bot_for_slack_serves_slack_only(slack_bot: httpx2.Client, service: Service) -> None:
    assert command(slack_bot, service, "", secret="another").status_code == 401
    assert command(slack_bot, service, "", age_seconds=3600).status_code == 401
    assert slack_bot.post("/", data={"text": ""}).status_code == 401
    assert service.calls.empty()


def test_ten_lines_post_a_joke(jokes: str, service: Service, tmp_path: Path) -> None:
    page = ROOT / "docs/how-to/bot.md"
    (bot,) = [
        block
        for block in blocks(page.name, page.read_text(encoding="utf-8"))
        if block.title == "morning.py"
    ]
    assert len([line for line in bot.text.splitlines() if line]) <= 10
    variables = {"JOKES_URL": jokes, "WEBHOOK_URL": f"{service.address}/hook"}
    subprocess.run([sys.executable, "-c", bot.text], env=os.environ | variables, check=True)
    call = service.next_call()
    assert call.path == "/hook"
    assert call.body["text"].startswith("Why did the kettle")
