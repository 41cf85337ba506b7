"""What the page shows before anybody has asked for a joke."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.conftest import JOKES
from tests.web.page.browser import Open, check_accessibility, choose


@pytest.mark.integration
def test_a_joke_is_there_already(open_page: Open, pooled: str) -> None:
    page = open_page(at=pooled)
    expect(page.locator("#jokes .question")).to_have_text(JOKES[0][0])
    expect(page.locator("#jokes .told .answer")).to_have_text(JOKES[0][1])
    expect(page.locator("#jokes .badge:visible")).to_have_text(["Picked by readers", "original"])
    page.get_by_text("Picked by readers").click()
    expect(page.get_by_text("Readers rated many of the model")).to_be_visible()
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
    expect(page.get_by_text("Readers rated many of the model")).to_be_visible()
    page.get_by_role("button", name="Another one").click()
    expect(page.locator("#jokes .question")).not_to_have_text(JOKES[0][0])


@pytest.mark.integration
def test_the_page_asks_for_a_joke_by_itself_while_the_pool_is_empty(
    open_page: Open, just_started: str
) -> None:
    page = open_page(at=just_started, reduced_motion="reduce")
    expect(page.locator("#jokes .told .question")).to_have_text(re.compile("kettle number"))
    expect(page).to_have_url(re.compile("/jokes/"))  # so a reload keeps it
    first, address = page.locator("#jokes .question").inner_text(), page.url
    page.get_by_role("button", name="Another one").click(delay=600)
    expect(page).not_to_have_url(address)
    expect(page.locator("#jokes .told .question")).not_to_have_text(first)
    page.go_back()
    expect(page.locator("#jokes .told .question")).to_have_text(first)


@pytest.mark.integration
def test_what_the_page_asks_for_by_itself_can_be_stopped(
    open_page: Open, just_started: str
) -> None:
    page = open_page("/docs", at=just_started)
    busy = page.request.post(f"{just_started}/generate", data={"prompt": "hang"}).json()
    page.goto(just_started)
    said = page.get_by_role("status").first
    expect(said).to_have_text("Waiting for the model…")
    expect(page.locator("#jokes .waiting")).to_be_visible()
    check_accessibility(page)
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    expect(said).to_have_text("Stopped.")
    expect(page.locator("#jokes .joke")).to_have_count(0)
    expect(page.get_by_role("button", name="Tell me a joke")).to_be_focused()
    page.request.delete(f"{just_started}/generate/{busy['task_id']}")


@pytest.mark.integration
def test_an_empty_pool_offers_a_joke_without_javascript(open_page: Open, just_started: str) -> None:
    page = open_page(at=just_started, java_script_enabled=False)
    expect(page.get_by_text("The first jokes are being written")).to_be_visible()
    page.get_by_role("button", name="Ask for one").click()
    expect(page.locator("#jokes .question")).to_have_text(re.compile("kettle number"))
    expect(page.get_by_text("The first jokes are being written")).to_have_count(0)


@pytest.mark.integration
def test_the_page_waits_for_a_visitor_where_the_pool_is_switched_off(
    open_page: Open, address: str
) -> None:
    page = open_page("/docs")
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.goto(address, wait_until="networkidle")
    expect(page.locator("#jokes .joke")).to_have_count(0)
    expect(page.get_by_role("button", name="Another one")).to_be_hidden()
    assert not [url for url in asked if "/joke?" in url]


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
        page.get_by_role("link", name="Why did the…").click()
        expect(page.locator("#jokes .question")).to_have_text(re.compile("^Why did the number"))
        prompt = page.get_by_label("Start a question or name a topic.")
        assert prompt.input_value() == "Why did the"


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
