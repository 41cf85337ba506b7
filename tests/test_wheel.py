"""The wheel holds what a stranger needs, and tells a joke far from this checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from joker import __version__

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[1]
NEEDED = (
    "joker/py.typed",
    "joker/web/page/index.html",
    "joker/web/page/static/page.css",
    "joker/web/page/static/page.js",
    "joker/generation/moderation.txt",
    "joker/generation/offense.npz",
    "joker/jobs/records.lua",
    "joker/models/bundled/joker.json",
    "joker/models/bundled/fingerprints.npz",
    "joker/models/bundled/NOTICE",
    "joker/models/bundled/picked_jokes.jsonl",
    "joker/models/bundled/openvino/openvino_model.bin",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str], None]) -> Path:
    for module in ("build", "hatchling"):
        require(module)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return path


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    held = {name for name in names if name.startswith("joker/")}
    assert set(NEEDED) <= held
    written = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src/joker").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert held == written
    assert {name.split("/")[0] for name in names} == {
        "joker",
        f"gpt2_the_joker-{__version__}.dist-info",
    }


def test_it_tells_a_joke_far_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "unpacked")
    told = subprocess.run(
        [sys.executable, "-m", "joker", "tell", "--json", "--seed", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "unpacked")},
        capture_output=True,
        text=True,
        check=True,
    )
    (joke,) = json.loads(told.stdout)
    assert joke["question"]
    assert joke["answer"]
    assert str(ROOT) not in told.stderr


def test_the_version_stands_in_one_place() -> None:
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
    said = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])")
    places = [ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml"]
    for folder, files in (("src", "**/*.py"), ("docs", "**/*.md"), ("deploy", "**/*")):
        places += [path for path in (ROOT / folder).glob(files) if path.is_file()]
    found = [path for path in places if said.search(path.read_text("utf-8", errors="ignore"))]
    assert found == [ROOT / "src/joker/version.py"]
