"""What the page makes of a connection that is cut while jokes are on their way."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import pytest
from playwright.sync_api import expect

from tests.web.page.browser import Open, ask, choose

Relay = Callable[[bytes, int], AbstractContextManager["_Relay"]]
PATIENCE_SECONDS = 60


class _Wire(socketserver.BaseRequestHandler):
    """Passes on what a browser and a server send each other, until it is cut."""

    server: _Relay

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as upstream:
            back = threading.Thread(target=self._pass_back, args=(upstream,))
            back.start()
            with suppress(OSError):
                while data := self.request.recv(65536):
                    upstream.sendall(data)
            _shut(upstream)
            back.join()

    def _pass_back(self, upstream: socket.socket) -> None:
        with suppress(OSError):
            while data := upstream.recv(65536):
                passed = self.server.cut(data)
                self.request.sendall(passed)
                if passed != data:
                    self.server.may_cut.wait(PATIENCE_SECONDS)
                    break
        _shut(upstream)
        _shut(self.request)


class _Relay(socketserver.ThreadingTCPServer):
    """Stands between browsers and a server, and cuts connections.

    Args:
        target: The server's address.
        event: The beginning of the event after which a connection is cut.
        cuts: How many of them are cut.

    Attributes:
        address: For browsers.
        may_cut: Set when connections may be cut: browsers drop what their page has not yet read.
    """

    daemon_threads = True

    def __init__(self, target: tuple[str, int], event: bytes, cuts: int) -> None:
        super().__init__(("127.0.0.1", 0), _Wire)
        self.target = target
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.may_cut = threading.Event()
        self._event = event
        self._cuts = cuts

    def cut(self, data: bytes) -> bytes:
        """Return what the browser gets of some data before the connection is cut."""
        if not self._cuts or self._event not in data:
            return data
        self._cuts -= 1
        return data[: data.index(b"\n\n", data.index(self._event)) + 2]


def _shut(wire: socket.socket) -> None:
    with suppress(OSError):
        wire.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay(address: str) -> Relay:
    """Return ``relay(event, cuts)``, a context manager that gives a `_Relay`."""

    @contextmanager
    def open_relay(event: bytes, cuts: int) -> Iterator[_Relay]:
        host, _, port = address.removeprefix("http://").partition(":")
        with _Relay((host, int(port)), event, cuts) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server
            server.shutdown()

    return open_relay


@pytest.mark.integration
def test_a_lost_connection_is_tried_once_more_and_what_was_told_stays(
    open_page: Open, relay: Relay
) -> None:
    with relay(b"event: joke", 1) as wire:
        page = open_page(at=wire.address, loses_connections=True)
        page.clock.install(time=0)
        page.clock.pause_at(1)  # or the page would try again before this test has looked
        choose(page, count=3, at_once=True)
        ask(page, "Why do cats")
        said = page.get_by_role("status").first
        told = page.locator("#jokes .told .question")
        expect(told).to_have_count(1)
        wire.may_cut.set()
        expect(said).to_have_text("The connection was lost. Trying again…")
        first = told.inner_text()
        with page.expect_request("**/joke?*") as sent:
            page.clock.run_for(3000)
        assert "n=2" in sent.value.url
        expect(told).to_have_count(3)
        assert told.first.inner_text() == first
        expect(said).to_have_text("")
        expect(page.get_by_role("button", name="Another one")).to_be_visible()


@pytest.mark.integration
def test_a_connection_that_is_lost_again_leaves_the_choice_to_try_again(
    open_page: Open, relay: Relay
) -> None:
    with relay(b"event: state", 2) as wire:
        wire.may_cut.set()
        page = open_page(at=wire.address, loses_connections=True)
        ask(page, "slow")
        said = page.get_by_role("status").first
        expect(said).to_have_text("The connection was lost. Try again in a moment.")
        expect(page.locator("#jokes .joke")).to_have_count(0)
        expect(page.get_by_role("button", name="Try harder")).to_be_hidden()
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#jokes .told .question")).to_have_text(re.compile("^slow number"))
        expect(page.get_by_role("button", name="Another one")).to_be_visible()


@pytest.mark.integration
def test_a_joke_that_has_arrived_needs_no_connection(open_page: Open, relay: Relay) -> None:
    with relay(b"event: joke", 1) as wire:
        page = open_page(at=wire.address, loses_connections=True)
        ask(page, "Why do cats")
        expect(page.locator("#jokes .told .question")).to_have_text(re.compile("^Why do cats"))
        wire.may_cut.set()
        expect(page.get_by_role("status").first).to_have_text("")
        expect(page.get_by_role("button", name="Another one")).to_be_visible()
