"""Every command of README.md and the documentation is run; `tests.docs.pages` says how."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from joker.cli import app
from tests.docs.pages import EXCUSES, Block, Ports, blocks, parse, run, script

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "deploy")
LEFT_OUT = ("docs/cli.md", "docs/experiments-log.md", "docs/decisions/", "CHANGELOG.md")
"""Usage lines, which another test keeps equal to the code, and what was true once."""

TEXTS = {
    name: path.read_text(encoding="utf-8")
    for path in sorted(
        [*ROOT.glob("*.md"), *(p for f in FOLDERS for p in ROOT.glob(f"{f}/**/*.md"))]
    )
    if not (name := path.relative_to(ROOT).as_posix()).startswith(LEFT_OUT)
}
PAGES = {name: blocks(name, text) for name, text in TEXTS.items()}
RUN = [name for name, page in PAGES.items() if any(block.runs for block in page)]
# Their commands train models for minutes; README and tutorial do the same in less.
LONG = {"docs/how-to/original.md", "docs/how-to/circle-of-laughs.md", "docs/templates.md"}
EXCUSED = [block for page in PAGES.values() for block in page if block.excuse]
PROGRAMS = ("curl", "jq", "node", "redis-server")


@pytest.mark.integration
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in RUN]
)
def test_every_command_of_a_page_does_what_it_should(
    name: str, tmp_path: Path, furnish: Callable[[Path, str], None]
) -> None:
    ports = Ports()
    commands = script(PAGES[name], ports)
    for program in PROGRAMS:
        if re.search(rf"\b{program}\b", commands) and shutil.which(program) is None:
            missing = pytest.fail if os.environ.get("CI") else pytest.skip
            missing(f"{program} is not installed")
    folder = tmp_path / "folder"
    folder.mkdir()
    furnish(folder, commands)
    well, said = run(commands, folder, ports)
    if not well:
        pytest.fail(f"{name} failed here:\n{said[-4000:]}", pytrace=False)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("$ cat nowhere.csv | wc -l", "nowhere.csv"),
        ("$ joker serve --model nowhere", "nowhere"),
        ("$ curl localhost:8000/nowhere", "404"),
    ],
)
def test_a_page_fails_where_its_first_mistake_stands(
    mistake: str, said: str, tmp_path: Path
) -> None:
    text = f"```console\n$ joker serve\n{mistake}\n$ echo and on\n```\n"
    folder, ports = tmp_path / "folder", Ports()
    folder.mkdir()
    well, transcript = run(script(blocks("page.md", text), ports), folder, ports)
    assert not well
    assert "and on" not in transcript
    assert said in transcript.split("page.md:1: ")[-1]


@pytest.mark.parametrize("name", TEXTS)
def test_no_command_escapes_being_run(name: str) -> None:
    fences = re.findall(r"^ *```", TEXTS[name], re.MULTILINE)
    assert len(fences) == 2 * len(PAGES[name]), "a block is not seen; is it indented too far?"
    for block in PAGES[name]:
        assert block.language not in {"bash", "sh", "shell"}, f"{block.place}: tag it console"
        shown = block.language == "console" or not re.search(r"^\$ ", block.text, re.MULTILINE)
        assert shown, f"{block.place}: it has commands; tag it console"
        assert block.commands or block.language != "console", f"{block.place}: no line has '$ '"


@pytest.mark.parametrize("block", EXCUSED, ids=lambda block: block.place)
def test_a_command_that_is_not_run_has_a_reason_and_names_what_exists(block: Block) -> None:
    assert block.excuse in EXCUSES, f"{block.place}: the reasons are {', '.join(EXCUSES)}"
    assert block.commands, f"{block.place}: only commands need an excuse"
    for command in block.commands:
        words = shlex.split(command, comments=True)
        written = {file for sign, file in pairwise(words) if sign == ">"}
        for word in set(words) - written:
            if word.startswith(tuple(f"{folder}/" for folder in FOLDERS)):
                assert (ROOT / word).exists(), f"{block.place}: there is no {word}"
        if words[0] == "make":
            tried = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True)
            assert tried.returncode == 0, f"{block.place}: there is no such target"
        if "joker" in words:
            check_options(words[words.index("joker") :], block.place)


@pytest.mark.parametrize("name", TEXTS)
def test_a_command_inside_a_sentence_has_only_options_that_exist(name: str) -> None:
    for paragraph in parse(TEXTS[name]):
        for token in paragraph.children or []:
            if token.type == "code_inline" and re.match(r"joker [a-z]", token.content):
                check_options(token.content.split(), name)


def check_options(words: list[str], place: str) -> None:
    """Check that a joker command names verbs and options that there are."""
    command: Any = typer.main.get_command(app)
    options = {"-h", "--help"}
    for word in words[1:]:
        options |= {name for part in command.params for name in (*part.opts, *part.secondary_opts)}
        if word.startswith("-"):
            assert word.partition("=")[0] in options, f"{place}: {words} has an unknown {word}"
        elif hasattr(command, "commands"):
            for verb in word.split("|"):
                assert verb in command.commands, f"{place}: {words} has an unknown verb {verb}"
            command = command.commands[verb]
