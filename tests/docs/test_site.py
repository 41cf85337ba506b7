"""The website is built without a warning, whole, and of nothing that lies elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import parse

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str], None]) -> Path:
    """Build the website beside the checkout, so that nothing is left in it."""
    for module in ("zensical", "mkdocstrings_handlers"):
        require(module)
    project = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "zensical.toml", project)
    shutil.copytree(ROOT / "docs", project / "docs")
    (project / "src").symlink_to(ROOT / "src")
    built = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return project / "site"


def test_every_page_is_built(site: Path) -> None:
    assert [page for page in PAGES if not (site / page).with_suffix(".html").exists()] == []


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loads = (
        r'<(?:script|img|iframe|source)[^>]* src="(?:https?:)?//|<link[^>]* href="(?:https?:)?//'
    )
    styles = r'(?:@import|url\()\s*["\']?(?:https?:)?//'
    found = {
        path.name: match[0]
        for path in site.rglob("*")
        if path.suffix in {".html", ".css"}
        and (match := re.search(f"{loads}|{styles}", path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_the_navigation_leads_to_every_page() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    assert sorted(targets(nav)) == PAGES, "put every page into the nav of zensical.toml, once"


@pytest.mark.parametrize(
    "path", [*ROOT.glob("*.md"), *ROOT.glob("deploy/**/*.md")], ids=lambda path: path.name
)
def test_links_outside_the_site_lead_to_files(path: Path) -> None:
    links = [
        str(part.attrs.get("href") or part.attrs.get("src"))
        for token in parse(path.read_text(encoding="utf-8"))
        for part in token.children or []
        if part.type in {"link_open", "image"}
    ]
    here = [link.partition("#")[0] for link in links if not re.match(r"\w+:|#", link)]
    assert [link for link in here if not (path.parent / link).exists()] == []


def targets(nav: Any) -> Iterator[str]:
    for entry in nav:
        for target in entry.values():
            if isinstance(target, str):
                yield target
            else:
                yield from targets(target)
