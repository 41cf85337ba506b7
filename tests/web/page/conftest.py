"""The page in the system's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from joker.core.joke import GeneratedJoke
from joker.store import Store
from tests.conftest import JOKES
from tests.web.page.browser import EXPECTED, LOST, PATIENCE_MS, Open, Serve


@pytest.fixture
def broker() -> str | None:
    """Return the queue in this process: the page knows no queue."""
    return None


@pytest.fixture(scope="module")
def address(serve: Serve) -> Iterator[str]:
    """Return the address of a running server."""
    with serve() as address:
        yield address


@pytest.fixture
def pooled(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a server with ten jokes in its pool, the first nine of them picked."""
    monkeypatch.setattr("joker.compose.read_picked_jokes", lambda _: [])
    monkeypatch.setattr("joker.web.archive._PAUSE_SECONDS", 600.0)  # drafts no others
    database = f"sqlite:///{tmp_path / 'jokes.sqlite'}"
    store = Store(database)
    for number, (question, answer) in enumerate(JOKES[:10]):
        joke = GeneratedJoke(question, answer, 1, 1, original=True)
        store.pool.add(joke, model="bundled", quality=-number, picked=number < 9)
    store.close()
    with serve(database=database, pool_size=1) as address:
        yield address


@pytest.fixture
def just_started(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a server whose pool is switched on and still empty."""
    monkeypatch.setattr("joker.compose.read_picked_jokes", lambda _: [])
    monkeypatch.setattr("joker.web.archive._PAUSE_SECONDS", 600.0)
    with serve(pool_size=1) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return the system's Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"], timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Open]:
    """Return ``open(path="/", at=address, **options)``, a page in a browser of its own.

    Whatever the browser complains about fails the test: errors, refused scripts and styles.
    Only responses of 4xx or 502, which the browser reports, are expected: the page handles them.
    So are lost connections, with ``loses_connections=True``.
    """
    complaints: list[str] = []
    contexts = []

    def start(
        path: str = "/", at: str = address, *, loses_connections: bool = False, **options: Any
    ) -> Page:
        expected = [EXPECTED, *([LOST] if loses_connections else [])]
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if message.type == "error" and not any(one.search(message.text) for one in expected)
                else None
            ),
        )
        page.goto(at + path)
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []
