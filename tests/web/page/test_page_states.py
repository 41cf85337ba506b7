"""Every state of the page in every mode: nothing is inaccessible, and nothing overflows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from joker.core.joke import GeneratedJoke
from joker.store import Store
from tests.conftest import JOKES
from tests.web.page.browser import Open, Serve, ask, check_accessibility

DESKTOP, PHONE = (1000, 760), (375, 553)
MODES: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "light": (DESKTOP, {"color_scheme": "light", "forced_colors": "none"}),
    "dark": (DESKTOP, {"color_scheme": "dark", "forced_colors": "none"}),
    "forced": (PHONE, {"color_scheme": "light", "forced_colors": "active"}),
    "phone": (PHONE, {"color_scheme": "light", "forced_colors": "none"}),
}
NARROWEST = (320, 553)
LONG = "Why do incomprehensibilities" + "s" * 60


@pytest.fixture(scope="module")
def site(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a server with a pool of picked jokes, one of them liked."""
    database = f"sqlite:///{tmp_path_factory.mktemp('site') / 'jokes.sqlite'}"
    store = Store(database)
    for question, answer in JOKES:
        joke = GeneratedJoke(question, answer, 1, 1, original=False)
        stored = store.pool.add(joke, model="bundled", picked=True)
    assert stored
    store.vote(stored.id, "ann", "up")
    store.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("joker.compose.read_picked_jokes", lambda _: [])
        patch.setattr("joker.web.archive._PAUSE_SECONDS", 600.0)
        with serve(database=database, pool_size=1) as address:
            yield address


def first_view(page: Page) -> None:
    expect(page.locator("#jokes .told")).to_have_count(1)


def explained(page: Page) -> None:
    first_view(page)
    page.locator("#jokes .origin summary").click()
    page.get_by_text("Options").click()


def told(page: Page) -> None:
    ask(page, LONG)
    expect(page.get_by_role("button", name="Try harder")).to_be_visible()


def drafting(page: Page) -> None:
    ask(page, "hang")
    expect(page.locator("#status")).to_have_text(re.compile("^Writing 16 drafts"))


def stopped(page: Page) -> None:
    drafting(page)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")


def refused(page: Page) -> None:
    ask(page, "fail")
    expect(page.locator("#status")).to_have_class("wrong")


def reported(page: Page) -> None:
    first_view(page)
    page.get_by_role("button", name="Report").click()
    expect(page.locator("#jokes .reported")).to_have_count(1)


def kept(page: Page) -> None:
    first_view(page)
    page.get_by_role("button", name="Favorite").click()
    page.get_by_role("button", name="Another one").click(delay=600)
    for name in ("Favorites 1", "Earlier in this visit 1"):
        page.get_by_text(name).click()
    expect(page.locator("#visit .question")).to_be_visible()


def linked(page: Page) -> None:
    first_view(page)
    page.get_by_role("link", name="Link").click()
    expect(page.locator("#jokes summary").first).to_be_visible()


def lost(page: Page) -> None:
    first_view(page)
    page.context.set_offline(True)
    ask(page, "Why do cats")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def as_it_is(page: Page) -> None:
    expect(page.locator("h1")).to_be_visible()


def check_modes(page: Page) -> None:
    for size, media in MODES.values():
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.emulate_media(**media)
        check_accessibility(page)
        _check_width(page)
    page.set_viewport_size({"width": NARROWEST[0], "height": NARROWEST[1]})
    _check_width(page)


def _check_width(page: Page) -> None:
    width = page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


STATES: dict[str, tuple[str, Callable[[Page], None]]] = {
    "first view": ("/", first_view),
    "explained": ("/", explained),
    "told": ("/", told),
    "several": ("/joke?n=3&prompt=Why", as_it_is),
    "drafting": ("/", drafting),
    "stopped": ("/", stopped),
    "refused": ("/", refused),
    "reported": ("/", reported),
    "favorites and history": ("/", kept),
    "link": ("/", linked),
    "lost connection": ("/", lost),
    "top": ("/jokes/top", as_it_is),
    "today": ("/jokes/today", first_view),
    "random": ("/jokes/random", first_view),
    "not found": ("/jokes/nothing-here", as_it_is),
}
# As they are without JavaScript: axe itself needs it, so only the page's own is missing.
PLAIN = ("/", f"/joke?prompt={LONG}", "/joke?n=3", "/joke?prompt=fail", "/jokes/top", "/nowhere")


@pytest.mark.integration
@pytest.mark.parametrize("state", STATES)
def test_a_state_is_accessible_and_fits_in_every_mode(
    open_page: Open, site: str, state: str
) -> None:
    path, lead = STATES[state]
    page = open_page(path, at=site, reduced_motion="reduce", loses_connections=True)
    lead(page)
    check_modes(page)
    if (stop := page.get_by_role("button", name="Stop")).is_visible():
        stop.click()


@pytest.mark.integration
def test_the_page_without_its_script_is_accessible_and_fits_in_every_mode(
    open_page: Open, site: str, just_started: str
) -> None:
    page = open_page("/docs", at=site, loses_connections=True, reduced_motion="reduce")
    page.route("**/page.js*", lambda route: route.abort())
    for address in (*(site + path for path in PLAIN), just_started):
        page.goto(address)
        as_it_is(page)
        check_modes(page)
    page.get_by_role("button", name="Ask for one").click()
    page.locator("#jokes summary").first.click()
    page.get_by_role("button", name="Report").click()
    expect(page.get_by_text("Thank you")).to_be_visible()
    check_modes(page)


@pytest.mark.integration
def test_a_full_limit_is_accessible_and_fits_in_every_mode(open_page: Open, serve: Serve) -> None:
    with serve(rate_limit="1/minute") as limited:
        page = open_page("/joke", at=limited)
        ask(page, "Why do cats")
        expect(page.locator("#status")).to_have_text(re.compile("try again in"))
        check_modes(page)
