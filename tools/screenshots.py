"""Take the pictures in docs/screenshots: the page in every state, told by the bundled model.

    python tools/screenshots.py

Starts servers with stores of their own, and shows their pages in the system's Chromium. It takes
three minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from joker.core.model_folder import bundled_model

FOLDER = Path(__file__).parents[1] / "docs" / "screenshots"
_COLORS = 128
_PATIENCE_SECONDS = 90.0
_UNPICKED = "Why do cats"  # no picked joke begins like this
_WELL_KNOWN = "What did one wall say to the other wall?"
_REFUSED = "dumb blondes"
_TOO_SHORT = 4  # tokens: too few for a joke
_DESKTOP = {"width": 1000, "height": 760}
_PHONE: dict[str, Any] = {
    "viewport": {"width": 375, "height": 553},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}


class Camera:
    """Opens pages of one server and takes pictures of them.

    Args:
        browser: The browser.
        address: The server's address.
        folder: Where pictures go.
    """

    def __init__(self, browser: Browser, address: str, folder: Path) -> None:
        self._browser = browser
        self._address = address
        self._folder = folder

    def open(self, path: str = "/", *, told: bool = True, **options: Any) -> Page:
        """Open a page in a context of its own, and wait for its joke if it has one."""
        context = self._browser.new_context(**{"viewport": _DESKTOP, **options})
        context.set_default_timeout(1000 * _PATIENCE_SECONDS)
        page = context.new_page()
        page.goto(self._address + path)
        if told:
            page.wait_for_selector(".told")
        return page

    def take(self, page: Page, name: str) -> None:
        """Save a picture of what a page shows once nothing moves any more, and close it."""
        page.mouse.move(5, 5)
        page.wait_for_timeout(1000)
        path = self._folder / f"{name}.png"
        page.screenshot(path=path)
        picture = Image.open(path).convert("RGB")
        picture.quantize(_COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
        page.context.close()


@contextmanager
def serving(**settings: str) -> Iterator[str]:
    """Yield the address of a server with settings and a store of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "JOKER_DATABASE": f"sqlite:///{folder}/jokes.sqlite",
            "JOKER_POOL_SIZE": "1",  # the picked jokes fill it, so nothing drafts meanwhile
            **settings,
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "joker", "serve", "--port", str(port)], env=environment
        )
        try:
            _wait_for(f"{address}/health/ready")
            yield address
        finally:
            server.terminate()
            server.wait()


def _wait_for(url: str) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            urlopen(url).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def picture_jokes(camera: Camera) -> None:
    """Take the states of the first view."""
    camera.take(camera.open("/jokes/top", told=False), "top-empty")
    camera.take(camera.open(), "light")
    camera.take(camera.open(**_PHONE), "phone")
    camera.take(camera.open(**_PHONE, color_scheme="dark"), "phone-dark")
    camera.take(camera.open(told=False, java_script_enabled=False), "plain")
    camera.take(camera.open("/joke?n=3", told=False), "several")
    page = camera.open(color_scheme="dark")
    page.click(".favorite")
    page.click("button[value=up]")
    page.click(".origin summary")
    page.wait_for_timeout(5000)  # the thanks have gone
    camera.take(page, "dark")
    page = camera.open()
    page.click("button[value=report]")
    camera.take(page, "reported")
    page = camera.open(told=False, java_script_enabled=False)
    link = page.get_attribute("#jokes .link", "href")
    page.click("text=I give up")
    page.click("button[value=report]")
    camera.take(page, "thanked")
    camera.take(camera.open(str(link), told=False), "reported-link")
    page = camera.open()
    page.click("text=Options")
    camera.take(page, "options")
    page = camera.open()
    page.click("#again")
    page.wait_for_selector("text=I give up")
    camera.take(page, "beat")
    camera.take(camera.open("/jokes/random"), "random")
    page = camera.open()
    page.click(".favorite")
    page.click("#again")
    page.wait_for_timeout(3000)
    for kept in ("#favorites", "#visit"):
        page.click(f"{kept} summary")
    camera.take(page, "favorites-and-history")
    page = camera.open()
    for _ in range(4):
        page.keyboard.press("Tab")
    link = page.get_attribute("#jokes .link", "href")
    camera.take(page, "keyboard")
    camera.take(camera.open(str(link), told=False, color_scheme="dark"), "link")
    camera.take(camera.open("/jokes/top"), "top")
    camera.take(camera.open("/jokes/today"), "today")
    camera.take(camera.open("/jokes/nothing-here", told=False), "not-found")
    for scheme in ("light", "dark"):
        page = camera.open("/docs", told=False, color_scheme=scheme)
        page.wait_for_selector(".opblock")
        camera.take(page, f"docs-{scheme}")


def picture_drafts(camera: Camera) -> None:
    """Take the states of a joke that is drafted on demand."""
    page = camera.open(f"/joke?prompt={_UNPICKED}", forced_colors="active")
    camera.take(page, "forced-colors")
    page = camera.open(f"/joke?prompt={_UNPICKED}", **_PHONE, forced_colors="active")
    camera.take(page, "phone-forced-colors")
    camera.take(camera.open(f"/joke?prompt={_UNPICKED}", **_PHONE), "phone-drafted")
    camera.take(_ask(camera, _UNPICKED, until=".told"), "drafted")
    page = _ask(camera, _UNPICKED, until=".told")
    page.click("#harder")
    page.wait_for_selector("#stop")
    camera.take(page, "drafting")
    page = _ask(camera, _UNPICKED)
    page.click("#stop")
    camera.take(page, "stopped")
    page = camera.open(f"/joke?temperature=0&prompt={_WELL_KNOWN}")
    page.click(".origin summary")
    camera.take(page, "retold")
    camera.take(_ask(camera, _REFUSED, until=".wrong"), "refused")
    page = camera.open(f"/joke?prompt={_UNPICKED}&max_new_tokens={_TOO_SHORT}", told=False)
    camera.take(page, "no-joke")


def picture_an_empty_pool(browser: Browser, folder: Path) -> None:
    """Take the first view with a model that has no picked jokes."""
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "own"
        shutil.copytree(bundled_model(), model, ignore=shutil.ignore_patterns("picked_jokes.jsonl"))
        for name, script in (("empty", True), ("empty-plain", False)):
            # A server each, since an idle one soon fills its pool.
            with serving(JOKER_MODEL=str(model)) as address:
                camera = Camera(browser, address, folder)
                page = camera.open(told=False, java_script_enabled=script)
                camera.take(page, name)


def _ask(camera: Camera, prompt: str, *, until: str = "#stop") -> Page:
    """Return a page on which a joke was asked for, by default while it is drafted."""
    page = camera.open()
    page.fill("#prompt", prompt)
    page.click("#tell")
    page.wait_for_selector(until)
    return page


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("error: Chromium is not installed; install your system's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with serving() as address:
            camera = Camera(browser, address, folder)
            picture_jokes(camera)
            picture_drafts(camera)
        picture_an_empty_pool(browser, folder)
        with serving(JOKER_RATE_LIMIT="1/minute") as address:
            camera = Camera(browser, address, folder)
            page = camera.open()
            for _ in range(2):
                page.click("#again")
                page.wait_for_timeout(4000)
            page.wait_for_selector(".wrong")
            camera.take(page, "rate-limit")
            page = camera.open()
        page.click("#again")
        page.wait_for_selector("text=Try again in a moment")
        camera.take(page, "lost")
        browser.close()


if __name__ == "__main__":
    main()
