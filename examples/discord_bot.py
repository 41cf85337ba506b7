"""A Discord bot: the slash command /joke, told by a server of GPT-2 the Joker.

Discord sends each use of the command to this program as a signed HTTP request.
``docs/how-to/bot.md`` says where the variables come from and how Discord reaches it; PyNaCl
verifies the signatures.
"""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

API = os.environ.get("DISCORD_API", "https://discord.com/api/v10")
APP = os.environ["DISCORD_APP_ID"]
KEY = VerifyKey(bytes.fromhex(os.environ["DISCORD_PUBLIC_KEY"]))
JOKES = os.environ.get("JOKES_URL", "http://localhost:8000")
PORT = int(os.environ.get("PORT", "8080"))
ABOUT = {"type": 3, "name": "about", "description": "A topic, or the start of a question"}
COMMAND = {"name": "joke", "description": "Tell a joke", "options": [ABOUT]}


def call_discord(method: str, path: str, body: Any) -> None:
    """Call Discord's API, which refuses programs with another kind of User-Agent."""
    headers = {
        "Authorization": f"Bot {os.environ['DISCORD_TOKEN']}",
        "Content-Type": "application/json",
        "User-Agent": "DiscordBot (https://discord.com, 1)",
    }
    request = Request(f"{API}/{path}", json.dumps(body).encode(), headers, method=method)
    urlopen(request, timeout=30).close()


def reason_of(error: HTTPError) -> str:
    """Return the server's reason in plain words, or the status of a proxy in its place."""
    try:
        problem = json.load(error)
        if problem["type"] == "/problems/refused" and "errors" not in problem:
            return "no joke on this worked out; try other words"
        return str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def tell(about: str) -> str:
    """Return a joke with a covered punchline, or why there is none."""
    query = urlencode({"prompt": about} if about else {})
    request = Request(f"{JOKES}/joke?{query}", headers={"Accept": "application/json"})
    try:
        with urlopen(request, timeout=90) as response:
            (joke,) = json.load(response)["result"]
    except HTTPError as error:
        return f"Sorry, {reason_of(error)}."
    except OSError:
        return "The server of jokes cannot be reached."
    return f"{joke['question']}\n||{joke['answer'].replace('||', '')}||"


def answer(interaction: dict[str, Any]) -> None:
    """Tell a joke in place of "thinking"; nobody is mentioned, whatever the model says."""
    options = interaction["data"].get("options", [])
    content = tell(next((option["value"] for option in options), ""))
    message = {"content": content[:2000], "allowed_mentions": {"parse": []}}
    call_discord("PATCH", f"webhooks/{APP}/{interaction['token']}/messages/@original", message)


class Interactions(BaseHTTPRequestHandler):
    """Takes what Discord sends; a joke may take longer than the 3 seconds that it waits."""

    def do_POST(self) -> None:
        """Answer a ping, or promise a joke."""
        body = self.rfile.read(min(int(self.headers["Content-Length"]), 100_000))
        try:
            signature = bytes.fromhex(self.headers["X-Signature-Ed25519"])
            KEY.verify(self.headers["X-Signature-Timestamp"].encode() + body, signature)
        except (AttributeError, TypeError, ValueError, BadSignatureError):
            self.send_error(401, "the signature is wrong")
            return
        interaction = json.loads(body)
        is_ping = interaction["type"] == 1
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"type": 1 if is_ping else 5}).encode())
        if not is_ping:
            threading.Thread(target=answer, args=(interaction,)).start()


if __name__ == "__main__":
    call_discord("PUT", f"applications/{APP}/commands", [COMMAND])
    ThreadingHTTPServer(("", PORT), Interactions).serve_forever()
