"""What tests of the page share: how pages are opened, and what a visitor does on them."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

Serve = Callable[..., AbstractContextManager[str]]
Open = Callable[..., Page]

PHONE: Any = {"viewport": {"width": 375, "height": 553}, "is_mobile": True, "has_touch": True}

EXPECTED = re.compile(r"responded with a status of (4\d\d|502)")
LOST = re.compile("net::ERR_")
PATIENCE_MS = 60_000

expect.set_options(timeout=PATIENCE_MS)


def check_accessibility(page: Page) -> None:
    violations = Axe().run(page).response["violations"]
    assert [(one["id"], [n["html"] for n in one["nodes"]]) for one in violations] == []


def ask(page: Page, prompt: str = "") -> None:
    page.get_by_label("Start a question or name a topic.").fill(prompt)
    page.get_by_role("button", name="Tell me a joke").click()


def choose(page: Page, *, count: int | None = None, at_once: bool = False) -> None:
    page.get_by_text("Options").click()
    if count:
        page.get_by_label("How many").fill(str(count))
    if at_once:
        page.get_by_label("Instant punchline").check()
