"""The page in a real browser: asking, what goes wrong, and what goes with it."""

from __future__ import annotations

import io
import re

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import expect

from tests.conftest import JOKES
from tests.web.page.browser import PHONE, Open, Serve, ask, check_accessibility, choose
from tests.web.stub import HOSTILE

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
    expect(page.locator("#jokes .model")).to_have_text("bundled")
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
    for _ in range(8):  # past the six starts and topics
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
def test_who_asks_for_any_joke_in_words_gets_one_that_is_ready(
    open_page: Open, pooled: str
) -> None:
    page = open_page(at=pooled)
    ask(page, "Tell me a joke!")
    expect(page.locator("#jokes .told .question")).to_have_text(JOKES[1][0])
    expect(page.get_by_role("button", name="Try harder")).to_be_hidden()


@pytest.mark.integration
def test_a_topic_gets_the_picked_joke_that_fits_and_then_a_draft(
    open_page: Open, pooled: str
) -> None:
    page = open_page(at=pooled)
    ask(page, "umbrellas")
    expect(page.locator("#jokes .told .question")).to_have_text(JOKES[6][0])
    expect(page.locator("#jokes .badge:visible").first).to_have_text("Picked by readers")
    expect(page.get_by_role("button", name="Try harder")).to_be_hidden()
    page.get_by_role("button", name="Another one").click(delay=600)
    expect(page.locator("#jokes .told .question")).to_have_text(re.compile("^umbrellas number"))
    expect(page.locator("#jokes .badge:visible").first).to_have_text("Straight from the model")
    expect(page.get_by_role("button", name="Try harder")).to_be_visible()


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
    assert [one for one in asked if one.startswith("/joke?")] == [
        "/joke?prompt=&n=1&safe=true",
        "/joke?prompt=slow&n=1&safe=true",
    ]


@pytest.mark.integration
def test_try_harder_asks_again_with_the_most_effort(open_page: Open) -> None:
    page = open_page()
    ask(page, "Why do cats")
    expect(page.locator("#jokes .told")).to_have_count(1)
    with page.expect_request("**/joke?*") as sent:
        page.get_by_role("button", name="Try harder").click()
    assert sent.value.url.endswith("/joke?prompt=Why+do+cats&n=1&safe=true&effort=5")
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
    with page.expect_request(lambda sent: sent.method == "DELETE"):
        page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status").first).to_have_text("Stopped.")
    for _ in range(200):
        if 'reason="revoked"} 1.0' in (told := page.request.get(f"{pooled}/metrics").text()):
            break
        page.wait_for_timeout(100)
    assert 'reason="revoked"} 1.0' in told
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
    page.get_by_role("link", name="Why did the…").scroll_into_view_if_needed()
    page.get_by_role("link", name="Why did the…").tap()
    expect(page.locator("#jokes .told .question")).to_have_text(re.compile("^Why did the"))
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
    expect(page.get_by_role("status").first).to_have_text(re.compile("^No joke worked out"))
    expect(page.locator("#jokes .joke")).to_have_count(0)


@pytest.mark.integration
def test_a_refusal_advises_what_the_page_can_do(open_page: Open) -> None:
    for page in (open_page(), open_page(java_script_enabled=False)):
        ask(page, "fail")
        said = page.get_by_role("status").first
        expect(said).to_have_text("No joke worked out; try again, perhaps with different words.")
        assert page.get_by_label("Start a question or name a topic.").input_value() == "fail"
        expect(page.get_by_role("button", name="Try harder")).to_be_visible()


@pytest.mark.integration
def test_nobody_is_told_to_try_harder_on_a_prompt_that_is_withheld(open_page: Open) -> None:
    for page in (open_page(), open_page(java_script_enabled=False)):
        ask(page, "genocidal")
        said = page.get_by_role("status").first
        expect(said).to_have_text(re.compile("^Moderation withholds this prompt"))
        expect(page.get_by_role("button", name="Try harder")).to_be_hidden()
        assert page.get_by_label("Start a question or name a topic.").input_value() == "genocidal"


@pytest.mark.integration
def test_the_rate_limit_says_how_long_to_wait(open_page: Open, serve: Serve) -> None:
    with serve(rate_limit="1/minute") as limited:
        page = open_page(at=limited)
        ask(page, "Why do cats")
        expect(page.get_by_text("I give up. Tell me!")).to_be_visible()
        for script in (True, False):
            page = open_page(at=limited, java_script_enabled=script)
            ask(page, "Why do cats")
            said = page.get_by_role("status").first
            expect(said).to_have_text(re.compile(r"try again in \d+ seconds?\.$"))


@pytest.mark.integration
def test_a_page_that_is_not_there_leads_back(open_page: Open, pooled: str) -> None:
    for path in ("/nowhere", "/jokes/abcdefghijkl"):
        page = open_page(path, at=pooled)
        expect(page.get_by_role("status").first).not_to_have_text("")
        expect(page.get_by_role("status").first).not_to_have_text(re.compile("/docs|GET "))
        check_accessibility(page)
        page.get_by_role("link", name="Home").click()
        expect(page.locator("#jokes .question")).to_have_count(1)


# What goes with it


@pytest.mark.integration
def test_the_documentation_needs_no_internet(open_page: Open) -> None:
    page = open_page("/docs")
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
    client.post(f"{joke['link']}/votes", json={"vote": "up"})
    for path, tagged in (("/jokes/today", True), ("/jokes/top", False), ("/", False)):
        shown = client.get(path, headers={"Accept": "text/html"}).text
        assert (tags["og:image"].removeprefix("http://testserver") in shown) is tagged, path


def test_the_page_asks_nobody_else_for_anything(client: TestClient) -> None:
    for path in ("/", "/docs", "/static/page.css", "/static/page.js"):
        assert not re.search(
            r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", client.get(path).text
        )
