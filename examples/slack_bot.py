"""A Slack bot: the slash command /joke, told by a server of GPT-2 the Joker.

Slack sends each use of the command to this program as a signed HTTP request. ``docs/how-to/bot.md``
says where the variables come from and how Slack reaches it. It needs Python and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode
from urllib.request import Request, urlopen

SECRET = os.environ["SLACK_SIGNING_SECRET"].encode()
JOKES = os.environ.get("JOKES_URL", "http://localhost:8000")
PORT = int(os.environ.get("PORT", "8080"))
MOST_SECONDS = 300  # Older requests may be recorded ones, sent again by somebody else.


def is_signed(body: bytes, timestamp: str, signature: str) -> bool:
    """Return whether Slack sent a request just now."""
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > MOST_SECONDS:
        return False
    digest = hmac.new(SECRET, f"v0:{timestamp}:".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"v0={digest}".encode(), signature.encode())


def reason_of(error: HTTPError) -> str:
    """Return the server's reason in plain words, or the status of a proxy in its place."""
    try:
        problem = json.load(error)
        if problem["type"] == "/problems/refused" and "errors" not in problem:
            return "no joke on this worked out; try other words"
        return str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def tell(about: str) -> dict[str, str]:
    """Return a joke as a message for all, or why there is none as one for the asker."""
    query = urlencode({"prompt": about} if about else {})
    request = Request(f"{JOKES}/joke?{query}", headers={"Accept": "application/json"})
    try:
        with urlopen(request, timeout=90) as response:
            (joke,) = json.load(response)["result"]
    except HTTPError as error:
        return {"response_type": "ephemeral", "text": f"Sorry, {reason_of(error)}."}
    except OSError:
        return {"response_type": "ephemeral", "text": "The server of jokes cannot be reached."}
    question, answer = (html.escape(joke[part], quote=False) for part in ("question", "answer"))
    return {"response_type": "in_channel", "text": f"{question}\n*{answer}*"}


def answer(about: str, response_url: str) -> None:
    """Send a joke where Slack waits for it, for up to half an hour."""
    headers = {"Content-Type": "application/json"}
    urlopen(Request(response_url, json.dumps(tell(about)).encode(), headers), timeout=30).close()


class Commands(BaseHTTPRequestHandler):
    """Takes what Slack sends; a joke may take longer than the 3 seconds that it waits."""

    def do_POST(self) -> None:
        """Accept a command, and have the joke told."""
        body = self.rfile.read(min(int(self.headers["Content-Length"]), 100_000))
        timestamp = self.headers.get("X-Slack-Request-Timestamp", "")
        if not is_signed(body, timestamp, self.headers.get("X-Slack-Signature", "")):
            self.send_error(401, "the signature is wrong")
            return
        fields = parse_qs(body.decode())
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"response_type": "in_channel"}')  # shows the command to all
        about, url = (fields.get(name, [""])[0] for name in ("text", "response_url"))
        threading.Thread(target=answer, args=(about, url)).start()


if __name__ == "__main__":
    ThreadingHTTPServer(("", PORT), Commands).serve_forever()
