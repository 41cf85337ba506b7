"""Jokes on the page that stay: history, favorites, sharing, links and votes."""

from __future__ import annotations

import io
import re
import time

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.conftest import JOKES
from tests.web.page.browser import PATIENCE_MS, PHONE, Open, ask, check_accessibility, choose


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
def test_a_vote_is_still_there_after_the_next_joke(open_page: Open, pooled: str) -> None:
    page = open_page(at=pooled)
    shown = page.locator("#jokes .told")
    shown.get_by_role("button", name="Favorite").click()
    funny = shown.get_by_role("button", name="Funny 1", exact=True)
    shown.get_by_role("button", name="Funny", exact=True).click()
    expect(funny).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Another one").click()
    expect(shown.locator(".question")).to_have_text(JOKES[1][0])
    for kept in ("Favorites 1", "Earlier in this visit 1"):
        page.get_by_text(kept).click()
    expect(page.locator(".kept button[value=up][aria-pressed=true]")).to_have_count(2)
    page.go_back()
    expect(shown.locator(".question")).to_have_text(JOKES[0][0])
    expect(funny).to_have_attribute("aria-pressed", "true")


@pytest.mark.integration
def test_jokes_of_a_list_are_jokes_of_this_visit(open_page: Open) -> None:
    page = open_page("/joke?n=2")
    expect(page.locator("#jokes .told")).to_have_count(2)


@pytest.mark.integration
def test_favorites_stay_in_this_browser_until_cleared(open_page: Open, address: str) -> None:
    page = open_page()
    ask(page, "Why do cats")
    expect(page.locator("#jokes .told")).to_have_count(1)
    question = page.locator("#jokes .question").inner_text()
    star = page.locator("#jokes").get_by_role("button", name="Favorite")
    star.click()
    expect(star).to_have_attribute("aria-pressed", "true")
    expect(star).to_be_focused()
    other_tab = page.context.new_page()
    other_tab.goto(address)
    other_tab.get_by_text("Favorites 1").click()
    expect(other_tab.locator("#favorites .question")).to_have_text([question])
    check_accessibility(other_tab)
    other_tab.locator("#favorites").get_by_role("button", name="Favorite", exact=True).click()
    expect(other_tab.locator("#favorites")).to_be_hidden()
    star.click()
    star.click()
    page.get_by_text("Favorites 1").click()
    page.get_by_role("button", name="Clear favorites").click()
    expect(page.locator("#favorites")).to_be_hidden()
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
def test_a_random_joke_gives_way_to_another_one(open_page: Open, pooled: str) -> None:
    for script in (True, False):
        page = open_page("/docs", at=pooled, java_script_enabled=script, reduced_motion="reduce")
        answer = page.goto(f"{pooled}/jokes/random")
        assert answer is not None
        assert answer.headers["cache-control"] == "no-store"
        shown = page.locator("#jokes .question")
        seen = [shown.inner_text()]
        page.reload()
        expect(shown).not_to_have_text(seen[0])
        seen.append(shown.inner_text())
        page.get_by_role("button", name="Another random joke").click()
        expect(page.get_by_role("button", name="Another one")).to_be_visible()
        expect(shown).not_to_have_text(re.compile("|".join(["^$", *map(re.escape, seen)])))


@pytest.mark.integration
def test_votes_by_mouse_and_keyboard_keep_the_focus(open_page: Open, address: str) -> None:
    page = open_page()
    choose(page, at_once=True)
    ask(page)
    card = page.locator("#jokes .told")
    card.get_by_role("button", name="Funny", exact=False).first.click()
    expect(page.get_by_role("status").last).to_have_text("Thanks, glad you liked it.")
    funny = card.locator("button[value=up]")
    expect(funny).to_have_attribute("aria-pressed", "true")
    expect(funny).to_have_text(re.compile("1$"))
    expect(funny).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").last).to_have_text("Thanks, noted.")
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
def test_a_vote_is_shown_wherever_the_joke_is(open_page: Open, pooled: str) -> None:
    page = open_page(at=pooled, reduced_motion="reduce")
    page.locator("#jokes").get_by_role("button", name="Favorite").click()
    page.get_by_text("Favorites 1").click()
    pressed = "button[value={}][aria-pressed=true]"
    for voted, other, value in (("#jokes", "#favorites", "up"), ("#favorites", "#jokes", "down")):
        button = page.locator(f"{voted} button[value={value}]")
        button.click()
        expect(page.locator(f"{other} {pressed.format(value)} .count")).to_have_text("1")
        expect(page.locator(f"{other} [aria-pressed=true][value]")).to_have_count(1)
        expect(button).to_be_focused()
    page.reload()
    expect(page.locator(f"#jokes {pressed.format('down')} .count")).to_have_text("1")
    page.goto(pooled + (page.locator("#jokes .link").get_attribute("href") or ""))
    page.locator("#jokes").get_by_text("I give up. Tell me!").click()
    expect(page.locator(f"#jokes {pressed.format('down')} .count")).to_have_text("1")
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
def test_a_report_without_javascript_ends_on_thanks_and_leads_home(
    open_page: Open, pooled: str
) -> None:
    page = open_page(at=pooled, java_script_enabled=False)
    page.get_by_text("I give up. Tell me!").click()
    page.get_by_role("button", name="Report").click()
    expect(page.get_by_text("Thank you. This joke was reported")).to_be_visible()
    expect(page.locator("#jokes .joke")).to_have_count(0)
    expect(page.locator(".wrong")).to_have_count(0)
    page.reload()  # which sends nothing again
    page.get_by_role("link", name="Home").click()
    expect(page.locator("#jokes .question")).to_have_text(JOKES[1][0])


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
