"""The page in a real browser: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.web.stub import HOSTILE

Serve = Callable[..., AbstractContextManager[str]]
Open = Callable[..., Page]

PATIENCE_MS = 300_000

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def broker() -> str | None:
    """Return the queue in this process: the page knows no queue."""
    return None


@pytest.fixture(scope="module")
def address(serve: Serve) -> Iterator[str]:
    """Return the address of a running server."""
    with serve() as address:
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
    """Return ``open(path="/", **options)``, a page in a browser of its own.

    Whatever the browser complains about fails the test: errors, refused scripts and styles.
    Only ReDoc's logo, which it wants from its makers, may be refused: it is decoration.
    """
    complaints: list[str] = []
    contexts = []

    def start(path: str = "/", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if message.type == "error" and "logo-mini.svg" not in message.text
                else None
            ),
        )
        page.goto(address + path)
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []


def check_accessibility(page: Page) -> None:
    violations = Axe().run(page).response["violations"]
    assert [(one["id"], [n["html"] for n in one["nodes"]]) for one in violations] == []


@pytest.mark.integration
def test_a_joke_by_mouse(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("Start a question or name a topic.").fill("Why do cats")
    page.get_by_role("button", name="Tell me a joke").click()
    expect(page.locator("#jokes .question")).to_have_text(re.compile(r"^Why do cats number \d+\?$"))
    expect(page.locator("#jokes .told .answer")).to_have_text(re.compile(r"^It was told"))
    expect(page.locator("#jokes .badge")).to_have_text("original")
    check_accessibility(page)
    first = page.locator("#jokes .question").inner_text()
    page.get_by_role("button", name="Another one").click()
    expect(page.locator("#jokes .question")).not_to_have_text(first)
    expect(page.locator("#jokes .told")).to_have_count(1)


@pytest.mark.integration
def test_jokes_by_keyboard(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    page.keyboard.type("Why do cats")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.type("3")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.get_by_label("Start a question or name a topic.").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#jokes .told .answer")).to_have_count(3)
    expect(page.locator("#jokes .badge")).to_have_text(["original", "retold", "retold"])


@pytest.mark.integration
def test_the_punchline_waits_a_beat_unless_somebody_prefers_it_at_once(open_page: Open) -> None:
    page = open_page()
    page.clock.install()
    page.get_by_role("button", name="Tell me a joke").click()
    expect(page.locator("#jokes .waiting .question")).to_have_text(re.compile("kettle"))
    expect(page.locator("#jokes .answer")).to_have_text("")
    page.clock.run_for(3000)
    expect(page.locator("#jokes .told .answer")).to_have_text(re.compile("told"))
    page.get_by_label("Instant punchline").check()
    page.get_by_role("button", name="Tell me a joke").click()
    expect(page.locator("#jokes .told .answer")).to_have_text(re.compile("told"))


@pytest.mark.integration
def test_a_hostile_joke_is_text_with_and_without_javascript(open_page: Open) -> None:
    for page in (open_page(), open_page(java_script_enabled=False)):
        page.get_by_label("Start a question or name a topic.").fill("hostile")
        page.get_by_role("button", name="Tell me a joke").click()
        expect(page.locator("#jokes .answer")).to_have_text(HOSTILE)
        assert page.locator("#jokes img").count() == 0
        assert page.title() == "Surely You’re Joking, GPT-2!"


@pytest.mark.integration
def test_a_joke_without_javascript(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    page.get_by_label("Start a question or name a topic.").fill("Why do cats")
    page.get_by_label("How many").fill("2")
    page.get_by_role("button", name="Tell me a joke").click()
    expect(page.locator("#jokes .answer")).to_have_count(2)
    assert page.get_by_label("Start a question or name a topic.").input_value() == "Why do cats"
    expect(page.get_by_role("button", name="Copy")).to_have_count(0)
    question = page.locator("#jokes .question").first.inner_text()
    page.get_by_role("link", name="Link").first.click()
    expect(page.locator("#jokes .question")).to_have_text(question)


@pytest.mark.integration
def test_a_joke_on_a_phone_fits_its_width(open_page: Open) -> None:
    page = open_page(viewport={"width": 320, "height": 640}, is_mobile=True, has_touch=True)
    page.get_by_role("button", name="Tell me a joke").tap()
    expect(page.locator("#jokes .told")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    check_accessibility(page)


@pytest.mark.integration
def test_the_dark_page_is_accessible(open_page: Open) -> None:
    page = open_page("/joke?prompt=Why&n=2", color_scheme="dark", reduced_motion="reduce")
    expect(page.get_by_role("button", name="Copy")).to_have_count(2)
    check_accessibility(page)


@pytest.mark.integration
def test_a_failure_is_said_in_a_sentence(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("Start a question or name a topic.").fill("fail")
    page.get_by_role("button", name="Tell me a joke").click()
    expect(page.get_by_role("status")).to_have_text(re.compile("^The joke could not be told"))
    expect(page.locator("#jokes .joke")).to_have_count(0)


@pytest.mark.integration
def test_jokes_are_remembered_in_this_browser_until_forgotten(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("Instant punchline").check()
    page.get_by_role("button", name="Tell me a joke").click()
    expect(page.locator("#jokes .told")).to_have_count(1)
    page.reload()
    page.get_by_text("Recent jokes").click()
    expect(page.locator("#recent-jokes .question")).to_have_text([re.compile("kettle")])
    check_accessibility(page)
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_text("Recent jokes")).to_be_hidden()


@pytest.mark.integration
def test_a_joke_is_copied_and_its_link_leads_back(open_page: Open, address: str) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_label("Instant punchline").check()
    page.get_by_role("button", name="Tell me a joke").click()
    expect(page.locator("#jokes .told")).to_have_count(1)
    question = page.locator("#jokes .question").inner_text()
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("status")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()").startswith(question)
    page.get_by_role("button", name="Share").first.click()
    expect(page.get_by_role("status")).to_have_text("Link copied.")
    page.goto(page.evaluate("navigator.clipboard.readText()"))
    expect(page.locator("#jokes .question")).to_have_text(question)


@pytest.mark.integration
def test_votes_by_mouse_and_keyboard_keep_the_focus(open_page: Open, address: str) -> None:
    page = open_page()
    page.get_by_label("Instant punchline").check()
    page.get_by_role("button", name="Tell me a joke").click()
    card = page.locator("#jokes .told")
    card.get_by_role("button", name="Funny", exact=False).first.click()
    expect(page.get_by_role("status")).to_have_text("Thanks: you find it funny.")
    funny = card.locator("button[value=up]")
    expect(funny).to_have_attribute("aria-pressed", "true")
    expect(funny).to_have_text(re.compile("1$"))
    expect(funny).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Thanks: you do not find it funny.")
    expect(card.locator("button[value=down]")).to_be_focused()
    expect(funny).to_have_attribute("aria-pressed", "false")
    check_accessibility(page)
    link = card.get_attribute("data-link")
    assert link is not None
    page.goto(address + link)
    expect(page.locator("#jokes button[value=down]")).to_have_text(re.compile("1$"))
    page.get_by_role("button", name="Report").first.click()
    expect(page.get_by_role("status")).to_have_text(re.compile("^Reported"))
    check_accessibility(page)


@pytest.mark.integration
def test_votes_without_javascript_lead_back_to_the_joke(open_page: Open) -> None:
    page = open_page("/joke", java_script_enabled=False)
    question = page.locator("#jokes .question").inner_text()
    page.get_by_role("button", name="Funny", exact=False).first.click()
    expect(page.locator("#jokes .question")).to_have_text(question)
    assert re.search(r"/jokes/[A-Za-z0-9]{12}$", page.url)
    expect(page.locator("#jokes button[value=up]")).to_have_text(re.compile("1$"))
    page.get_by_role("button", name="Not funny").click()
    expect(page.locator("#jokes button[value=down]")).to_have_text(re.compile("1$"))


@pytest.mark.integration
def test_votes_can_be_seen_and_hit_in_forced_colours_on_a_phone(open_page: Open) -> None:
    page = open_page(
        "/joke",
        viewport={"width": 320, "height": 640},
        forced_colors="active",
        reduced_motion="reduce",
    )
    for value in ("up", "down", "report"):
        button = page.locator(f"#jokes button[value={value}]")
        box = button.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44
        assert button.evaluate("element => getComputedStyle(element).borderTopWidth") != "0px"
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


@pytest.mark.integration
@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_documentation_needs_no_internet(open_page: Open, path: str) -> None:
    page = open_page(path)
    expect(page.get_by_text("Submit a job").locator("visible=true").first).to_be_visible()


def test_the_page_asks_nobody_else_for_anything(client: TestClient) -> None:
    for path in ("/", "/docs", "/redoc", "/static/page.css", "/static/page.js"):
        assert not re.search(
            r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", client.get(path).text
        )
