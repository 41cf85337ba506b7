"""The page in a real browser: the system's Chromium, driven by Playwright."""

from __future__ import annotations

import io
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from joker.core.joke import GeneratedJoke
from joker.store import Store
from tests.conftest import JOKES
from tests.web.stub import HOSTILE

Serve = Callable[..., AbstractContextManager[str]]
Open = Callable[..., Page]

PHONE: Any = {"viewport": {"width": 375, "height": 553}, "is_mobile": True, "has_touch": True}

EXPECTED = re.compile(r"logo-mini\.svg|responded with a status of (4\d\d|502)")
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


@pytest.fixture
def pooled(serve: Serve, tmp_path: Path) -> Iterator[str]:
    """Return the address of a server with ten jokes in its pool, the first nine of them picked."""
    database = f"sqlite:///{tmp_path / 'jokes.sqlite'}"
    store = Store(database)
    for number, (question, answer) in enumerate(JOKES[:10]):
        joke = GeneratedJoke(question, answer, 1, 1, original=True)
        store.pool.add(joke, model="bundled", quality=-number, picked=number < 9)
    store.close()
    with serve(database=database) as address:
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
    Only ReDoc's logo, which it wants from its makers, may be refused: it is decoration; and the
    browser reports every response of 4xx or 502, which the page handles.
    """
    complaints: list[str] = []
    contexts = []

    def start(path: str = "/", at: str = address, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if message.type == "error" and not EXPECTED.search(message.text)
                else None
            ),
        )
        page.goto(at + path)
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []


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


# First view


@pytest.mark.integration
def test_a_joke_is_there_already(open_page: Open, pooled: str) -> None:
    page = open_page(at=pooled)
    expect(page.locator("#jokes .question")).to_have_text(JOKES[0][0])
    expect(page.locator("#jokes .told .answer")).to_have_text(JOKES[0][1])
    expect(page.locator("#jokes .badge:visible")).to_have_text(["Picked by readers", "original"])
    page.get_by_text("Picked by readers").click()
    expect(page.get_by_text("Readers went through many jokes")).to_be_visible()
    check_accessibility(page)


@pytest.mark.integration
def test_a_joke_is_there_without_javascript(open_page: Open, pooled: str) -> None:
    page = open_page(at=pooled, java_script_enabled=False)
    expect(page.locator("#jokes .question")).to_have_text(JOKES[0][0])
    expect(page.locator("#jokes .answer")).to_be_hidden()
    expect(page.get_by_role("button", name="Funny", exact=True)).to_be_hidden()
    page.get_by_text("I give up. Tell me!").click()
    expect(page.locator("#jokes .answer")).to_have_text(JOKES[0][1])
    expect(page.get_by_role("button", name="Funny", exact=True)).to_be_visible()
    page.get_by_text("Picked by readers").click()
    expect(page.get_by_text("Readers went through many jokes")).to_be_visible()
    page.get_by_role("button", name="Another one").click()
    expect(page.locator("#jokes .question")).not_to_have_text(JOKES[0][0])


@pytest.mark.integration
def test_the_first_punchline_waits_a_beat_unless_motion_is_unwelcome(
    open_page: Open, pooled: str
) -> None:
    page = open_page("/docs", at=pooled)
    page.clock.install()
    page.goto(f"{pooled}/")
    expect(page.locator("#jokes .waiting .question")).to_be_visible()
    expect(page.locator("#jokes .answer")).to_be_hidden()
    again = page.get_by_role("button", name="Another one")
    before = again.bounding_box()
    page.clock.run_for(3000)
    expect(page.locator("#jokes .told .answer")).to_be_visible()
    assert again.bounding_box() == before  # Nothing moves away under a finger.

    page = open_page("/docs", at=pooled, reduced_motion="reduce")
    page.clock.install()
    page.goto(f"{pooled}/")
    expect(page.locator("#jokes .told .answer")).to_be_visible()


@pytest.mark.integration
def test_whoever_cannot_wait_opens_the_punchline(open_page: Open, pooled: str) -> None:
    page = open_page("/docs", at=pooled)
    page.clock.install()
    page.goto(f"{pooled}/")
    page.locator("#jokes .waiting summary").first.click()
    expect(page.locator("#jokes .told .answer")).to_have_text(JOKES[0][1])


@pytest.mark.integration
def test_a_start_asks_with_and_without_javascript(open_page: Open) -> None:
    for page in (open_page(), open_page(java_script_enabled=False)):
        page.get_by_role("link", name="What do you call…").click()
        expect(page.locator("#jokes .question")).to_have_text(
            re.compile("^What do you call number")
        )
        prompt = page.get_by_label("Start a question or name a topic.")
        assert prompt.input_value() == "What do you call"


@pytest.mark.integration
def test_another_one_takes_the_next_joke_of_the_pool_and_drafts_after_the_last(
    open_page: Open, pooled: str
) -> None:
    page = open_page(at=pooled)
    choose(page, at_once=True)
    for question, _ in JOKES[1:10]:
        page.get_by_role("button", name="Another one").click(delay=600)
        expect(page.locator("#jokes .question")).to_have_text(question)
        expect(page.get_by_role("button", name="Try harder")).to_be_hidden()
    expect(page.locator("#jokes .badge:visible").first).to_have_text("Straight from the model")
    page.get_by_role("button", name="Another one").click(delay=600)
    expect(page.locator("#jokes .told .question")).to_have_text(re.compile("kettle number"))


# Asking


@pytest.mark.integration
def test_a_joke_by_mouse(open_page: Open) -> None:
    page = open_page()
    ask(page, "Why do cats")
    expect(page.locator("#jokes .question")).to_have_text(re.compile(r"^Why do cats number \d+\?$"))
    expect(page.locator("#jokes .told .answer")).to_have_text(re.compile(r"^It was told"))
    expect(page.locator("#jokes .badge:visible")).to_have_text(
        ["Straight from the model", "original"]
    )
    check_accessibility(page)
    first = page.locator("#jokes .question").inner_text()
    page.get_by_role("button", name="Another one").click()
    expect(page.locator("#jokes .question")).not_to_have_text(first)
    expect(page.locator("#jokes .told")).to_have_count(1)


@pytest.mark.integration
def test_jokes_by_keyboard(open_page: Open) -> None:
    page = open_page()
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.type("Why do cats")
    for _ in range(7):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("3")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.get_by_label("Start a question or name a topic.").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#jokes .told .answer")).to_have_count(3)
    expect(page.locator("#jokes .badge:visible")).to_have_text(
        ["Straight from the model", "original", *["Straight from the model", "retold"] * 2]
    )


@pytest.mark.integration
def test_the_punchline_waits_a_beat_unless_somebody_prefers_it_at_once(open_page: Open) -> None:
    page = open_page()
    page.clock.install()
    ask(page)
    expect(page.locator("#jokes .waiting .question")).to_have_text(re.compile("kettle"))
    expect(page.locator("#jokes .answer")).to_be_hidden()
    page.clock.run_for(3000)
    expect(page.locator("#jokes .told .answer")).to_have_text(re.compile("told"))
    choose(page, at_once=True)
    ask(page)
    expect(page.locator("#jokes .told .answer")).to_have_text(re.compile("told"))


@pytest.mark.integration
def test_another_one_keeps_the_focus(open_page: Open) -> None:
    page = open_page()
    choose(page, at_once=True)
    ask(page, "Why do cats")
    expect(page.locator("#jokes .told")).to_have_count(1)
    for name in ("Another one", "Try harder"):
        first = page.locator("#jokes .question").inner_text()
        page.get_by_role("button", name=name).focus()
        page.wait_for_timeout(600)
        page.keyboard.press("Enter")
        expect(page.locator("#jokes .question")).not_to_have_text(first)
        expect(page.locator("#jokes .told")).to_have_count(1)
        expect(page.get_by_role("button", name=name)).to_be_focused()


@pytest.mark.integration
def test_a_double_click_asks_once(open_page: Open, pooled: str) -> None:
    page = open_page(at=pooled)
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url.removeprefix(pooled)))
    page.get_by_role("button", name="Another one").dblclick()
    expect(page.locator("#jokes .told .question")).to_have_text(JOKES[1][0])
    page.get_by_label("Start a question or name a topic.").fill("slow")
    page.get_by_role("button", name="Tell me a joke").click(click_count=3, delay=300)
    expect(page.locator("#jokes .told .question")).to_have_text(re.compile("^slow number"))
    assert (asked.count("/jokes/random"), asked.count("/generate")) == (1, 1)


@pytest.mark.integration
def test_try_harder_asks_again_with_the_most_effort(open_page: Open) -> None:
    page = open_page()
    ask(page, "Why do cats")
    expect(page.locator("#jokes .told")).to_have_count(1)
    with page.expect_request("**/generate") as sent:
        page.get_by_role("button", name="Try harder").click()
    assert sent.value.post_data_json == {"prompt": "Why do cats", "n": 1, "safe": True, "effort": 5}
    expect(page.locator("#jokes .told .question")).to_have_text(re.compile("^Why do cats number"))


@pytest.mark.integration
def test_try_harder_without_javascript(open_page: Open) -> None:
    page = open_page("/joke?prompt=Why+do+cats", java_script_enabled=False)
    page.get_by_role("button", name="Try harder").click()
    assert "prompt=Why+do+cats" in page.url
    assert "effort=5" in page.url
    expect(page.locator("#jokes .question")).to_have_text(re.compile("^Why do cats number"))


@pytest.mark.integration
def test_drafting_can_be_stopped(open_page: Open, pooled: str) -> None:
    page = open_page(at=pooled)
    expect(page.locator("#jokes .told")).to_have_count(1)
    ask(page, "hang")
    expect(page.get_by_role("status").first).to_have_text(
        "Writing 16 drafts. The best one follows."
    )
    expect(page.locator("#seconds")).to_have_text(re.compile(r"^\d+ s$"))
    check_accessibility(page)
    with page.expect_request(re.compile("/generate/[^/]+$")) as cancelled:
        page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status").first).to_have_text("Stopped.")
    page.wait_for_load_state("networkidle")
    assert page.request.get(cancelled.value.url).json()["state"] == "REVOKED"
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.get_by_role("button", name="Tell me a joke")).to_be_focused()
    expect(page.locator("#jokes .told .question")).to_have_text(JOKES[0][0])


@pytest.mark.integration
def test_a_hostile_joke_is_text_with_and_without_javascript(open_page: Open) -> None:
    for page in (open_page(), open_page(java_script_enabled=False)):
        ask(page, "hostile")
        expect(page.locator("#jokes .answer")).to_have_text(HOSTILE)
        assert page.locator("#jokes img").count() == 0
        assert page.title() == "Surely You’re Joking, GPT-2!"


@pytest.mark.integration
def test_a_joke_without_javascript(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    choose(page, count=2)
    ask(page, "Why do cats")
    expect(page.locator("#jokes .answer")).to_have_count(2)
    expect(page.locator("#jokes .answer").first).to_be_visible()
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
def test_on_a_small_phone_the_joke_is_above_the_fold(open_page: Open, pooled: str) -> None:
    page = open_page(at=pooled, **PHONE)
    again = page.get_by_role("button", name="Another one")
    expect(page.locator("#jokes .told")).to_have_count(1)
    expect(again).to_be_in_viewport(ratio=1)
    page.get_by_role("link", name="What do you call…").scroll_into_view_if_needed()
    page.get_by_role("link", name="What do you call…").tap()
    expect(page.locator("#jokes .told .question")).to_have_text(re.compile("^What do you call"))
    expect(page.locator("#jokes .joke")).to_be_in_viewport(ratio=1)
    expect(again).to_be_in_viewport(ratio=1)


@pytest.mark.integration
def test_the_dark_page_is_accessible(open_page: Open) -> None:
    page = open_page("/joke?prompt=Why&n=2", color_scheme="dark", reduced_motion="reduce")
    expect(page.get_by_role("button", name="Copy")).to_have_count(2)
    check_accessibility(page)


# When something is wrong


@pytest.mark.integration
def test_a_failure_is_said_in_a_sentence(open_page: Open) -> None:
    page = open_page()
    ask(page, "fail")
    expect(page.get_by_role("status").first).to_have_text(re.compile("^The joke could not be told"))
    expect(page.locator("#jokes .joke")).to_have_count(0)


@pytest.mark.integration
def test_a_refusal_advises_what_the_page_can_do(open_page: Open) -> None:
    for page in (open_page(), open_page(java_script_enabled=False)):
        ask(page, "fail")
        said = page.get_by_role("status").first
        expect(said).to_have_text(
            re.compile("withheld as offensive; ask again, perhaps with other")
        )
        expect(said).not_to_have_text(re.compile("attempts or|tokens"))
        assert page.get_by_label("Start a question or name a topic.").input_value() == "fail"
        expect(page.get_by_role("button", name="Try harder")).to_be_visible()


@pytest.mark.integration
def test_the_rate_limit_says_how_long_to_wait(open_page: Open, serve: Serve) -> None:
    with serve(rate_limit="1/minute") as limited:
        for script in (True, False):
            page = open_page(at=limited, java_script_enabled=script)
            for _ in range(2):
                ask(page, "Why do cats")
                page.wait_for_timeout(600)
            said = page.get_by_role("status").first
            expect(said).to_have_text(re.compile(r"try again in \d+ seconds\.$"))


@pytest.mark.integration
def test_a_page_that_is_not_there_leads_back(open_page: Open, pooled: str) -> None:
    for path in ("/nowhere", "/jokes/abcdefghijkl"):
        page = open_page(path, at=pooled)
        expect(page.get_by_role("status").first).not_to_have_text("")
        expect(page.get_by_role("status").first).not_to_have_text(re.compile("/docs|GET "))
        check_accessibility(page)
        page.get_by_role("link", name="To the start").click()
        expect(page.locator("#jokes .question")).to_have_count(1)


# Jokes that stay


@pytest.mark.integration
def test_back_and_reload_keep_the_joke(open_page: Open, pooled: str) -> None:
    page = open_page(at=pooled)
    shown = page.locator("#jokes .told .question")
    expect(shown).to_have_text(JOKES[0][0])
    page.reload()
    expect(shown).to_have_text(JOKES[0][0])
    page.get_by_role("button", name="Another one").click()
    # What the server sent in vain is not lost.
    expect(shown).to_have_text(JOKES[1][0])
    ask(page, "Why do cats")
    expect(shown).to_have_text(re.compile("^Why do cats"))
    drafted = shown.inner_text()
    page.reload()
    expect(shown).to_have_text(drafted)
    page.go_back()
    expect(shown).to_have_text(JOKES[1][0])
    assert page.get_by_label("Start a question or name a topic.").input_value() == ""
    page.go_back()
    expect(shown).to_have_text(JOKES[0][0])
    page.go_forward()
    page.go_forward()
    expect(shown).to_have_text(drafted)
    assert page.get_by_label("Start a question or name a topic.").input_value() == "Why do cats"
    page.goto(f"{pooled}/docs")
    page.go_back()
    expect(shown).to_have_text(drafted)


@pytest.mark.integration
def test_jokes_of_this_visit_are_listed_until_cleared(open_page: Open) -> None:
    page = open_page()
    choose(page, at_once=True)
    for prompt in ("Why do cats", "Why do dogs"):
        ask(page, prompt)
        expect(page.locator("#jokes .told .question")).to_have_text(re.compile(prompt))
        page.wait_for_timeout(600)
    page.reload()
    page.get_by_text("Earlier in this visit 1").click()
    expect(page.locator("#visit .question")).to_have_text([re.compile("Why do cats")])
    check_accessibility(page)
    page.get_by_role("button", name="Clear history").click()
    expect(page.get_by_text("Earlier in this visit")).to_be_hidden()


@pytest.mark.integration
def test_favourites_stay_in_this_browser_until_cleared(open_page: Open, address: str) -> None:
    page = open_page()
    ask(page, "Why do cats")
    expect(page.locator("#jokes .told")).to_have_count(1)
    question = page.locator("#jokes .question").inner_text()
    star = page.locator("#jokes").get_by_role("button", name="Favourite")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    expect(star).to_be_focused()
    other_tab = page.context.new_page()
    other_tab.goto(address)
    other_tab.get_by_text("Favourites 1").click()
    expect(other_tab.locator("#favourites .question")).to_have_text([question])
    check_accessibility(other_tab)
    other_tab.locator("#favourites").get_by_role("button", name="Favourite", exact=True).click()
    expect(other_tab.locator("#favourites")).to_be_hidden()
    star.click()
    star.click()
    page.get_by_text("Favourites 1").click()
    page.get_by_role("button", name="Clear favourites").click()
    expect(page.locator("#favourites")).to_be_hidden()
    expect(star).to_have_attribute("aria-pressed", "false")


@pytest.mark.integration
def test_a_joke_is_copied_and_its_link_leads_back(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    choose(page, at_once=True)
    ask(page)
    expect(page.locator("#jokes .told")).to_have_count(1)
    question = page.locator("#jokes .question").inner_text()
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("status").last).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()").startswith(question)
    page.get_by_role("button", name="Share").first.click()
    expect(page.get_by_role("status").last).to_have_text("Link copied.")
    page.goto(page.evaluate("navigator.clipboard.readText()"))
    expect(page.locator("#jokes .question")).to_have_text(question)


@pytest.mark.integration
def test_copied_is_said_where_the_reader_looks(open_page: Open) -> None:
    page = open_page("/joke?n=8", permissions=["clipboard-write"], **PHONE)
    page.get_by_role("button", name="Copy").last.click()
    expect(page.get_by_text("Copied.")).to_be_in_viewport(ratio=1)


@pytest.mark.integration
def test_a_picture_is_opened_or_handed_to_the_phone(open_page: Open) -> None:
    page = open_page("/joke?prompt=Why+do+cats", reduced_motion="reduce")
    link = page.get_by_role("link", name="Picture").get_attribute("href")
    picture = page.request.get(page.url.split("/joke")[0] + (link or "")).body()
    assert Image.open(io.BytesIO(picture)).size == (1200, 630)
    page.evaluate(
        "() => { navigator.canShare = () => true; navigator.share = async ({files}) => {"
        " window.shared = [files[0].type, files[0].size]; }; }"
    )
    page.get_by_role("link", name="Picture").click()
    until = time.monotonic() + PATIENCE_MS / 1000
    while page.evaluate("window.shared") is None:  # waiting in the page would need its eval()
        assert time.monotonic() < until
        page.wait_for_timeout(50)
    assert page.evaluate("window.shared") == ["image/png", len(picture)]


@pytest.mark.integration
def test_a_permanent_link_waits_for_a_click(open_page: Open, pooled: str) -> None:
    link = open_page(at=pooled, reduced_motion="reduce").locator("#jokes .link")
    path = link.get_attribute("href") or ""
    for script in (True, False):
        page = open_page(path, at=pooled, java_script_enabled=script)
        page.wait_for_timeout(2500)
        expect(page.locator("#jokes .question")).to_have_text(JOKES[0][0])
        expect(page.locator("#jokes .answer")).to_be_hidden()
        page.locator("#jokes summary").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#jokes .answer")).to_have_text(JOKES[0][1])
        expect(page.locator("#jokes .answer")).to_be_visible()
        if script:
            expect(page.locator("#jokes .answer")).to_be_focused()
            check_accessibility(page)


@pytest.mark.integration
def test_votes_by_mouse_and_keyboard_keep_the_focus(open_page: Open, address: str) -> None:
    page = open_page()
    choose(page, at_once=True)
    ask(page)
    card = page.locator("#jokes .told")
    card.get_by_role("button", name="Funny", exact=False).first.click()
    expect(page.get_by_role("status").last).to_have_text("Thanks: you find it funny.")
    funny = card.locator("button[value=up]")
    expect(funny).to_have_attribute("aria-pressed", "true")
    expect(funny).to_have_text(re.compile("1$"))
    expect(funny).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").last).to_have_text("Thanks: you do not find it funny.")
    expect(card.locator("button[value=down]")).to_be_focused()
    expect(funny).to_have_attribute("aria-pressed", "false")
    check_accessibility(page)
    link = card.get_attribute("data-link")
    assert link is not None
    page = open_page(link)
    page.get_by_text("I give up. Tell me!").click()
    expect(page.locator("#jokes button[value=down]")).to_have_text(re.compile("1$"))
    page.get_by_role("button", name="Report").first.click()
    expect(page.get_by_role("status").last).to_have_text(re.compile("^Reported"))
    check_accessibility(page)


@pytest.mark.integration
def test_votes_without_javascript_lead_back_to_the_joke(open_page: Open) -> None:
    page = open_page("/joke", java_script_enabled=False)
    question = page.locator("#jokes .question").inner_text()
    page.get_by_text("I give up. Tell me!").click()
    page.get_by_role("button", name="Funny", exact=True).click()
    expect(page.locator("#jokes .question")).to_have_text(question)
    assert re.search(r"/jokes/[A-Za-z0-9]{12}#punchline$", page.url)
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
def test_no_button_vanishes_in_forced_colours(open_page: Open) -> None:
    page = open_page("/joke?prompt=Why", forced_colors="active", reduced_motion="reduce")
    buttons = page.locator("button:visible, .takeaway a:visible, .starts a:visible").all()
    assert len(buttons) > 10
    for button in buttons:
        width, border, ground = button.evaluate(
            "element => { const style = getComputedStyle(element);"
            "return [style.borderTopWidth, style.borderTopColor,"
            " getComputedStyle(document.body).backgroundColor]; }"
        )
        assert width != "0px"
        assert border not in (ground, "rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")


# What goes with it


@pytest.mark.integration
@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_documentation_needs_no_internet(open_page: Open, path: str) -> None:
    page = open_page(path)
    expect(page.get_by_text("Submit a job").locator("visible=true").first).to_be_visible()


@pytest.mark.integration
def test_the_documentation_is_dark_for_those_who_want_it_so(open_page: Open) -> None:
    for scheme in ("light", "dark"):
        page = open_page("/docs", color_scheme=scheme)
        expect(page.locator(".swagger-ui .info .title")).to_be_visible()
        picture = Image.open(io.BytesIO(page.screenshot())).convert("L").resize((1, 1))
        brightness = picture.getpixel((0, 0))
        assert isinstance(brightness, int)
        assert (brightness < 80) if scheme == "dark" else (brightness > 200)


def test_the_page_of_a_joke_describes_itself_to_link_previews(client: TestClient) -> None:
    told = client.post(
        "/generate", json={"prompt": 'A "cat"'}, headers={"Prefer": "wait=30"}
    ).json()
    (joke,) = told["result"]
    page = client.get(joke["link"], headers={"Accept": "text/html"}).text
    tags = dict(re.findall(r'<meta (?:property|name)="([^"]+)" content="([^"]*)">', page))
    assert tags["og:title"] == joke["question"].replace('"', "&#34;")
    assert tags["og:url"] == f"http://testserver{joke['link']}"
    assert tags["twitter:card"] == "summary_large_image"
    assert joke["answer"] not in tags.values()
    picture = client.get(tags["og:image"].removeprefix("http://testserver"))
    assert Image.open(io.BytesIO(picture.content)).size == (
        int(tags["og:image:width"]),
        int(tags["og:image:height"]),
    )
    assert "og:image" not in client.get("/").text


def test_the_page_asks_nobody_else_for_anything(client: TestClient) -> None:
    for path in ("/", "/docs", "/redoc", "/static/page.css", "/static/page.js"):
        assert not re.search(
            r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", client.get(path).text
        )
