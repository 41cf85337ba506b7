r"""Every command of README.md and the documentation is run, each page in a shell of its own.

How a page is read, for whoever writes one:

- A ``console`` block holds commands behind ``$ ``, one that ends in ``\`` goes on in the next
  line; lines without ``$ `` show what comes out and are not compared.
- A block with ``title="NAME"`` becomes the file NAME. A ``python`` block without title is run.
- What runs until it is stopped (`SERVERS`) goes to the background; a second one on the same
  port replaces the first.
- ``<!-- not run: REASON -->`` in front of a block excuses it, for a reason of `EXCUSES`.
- Ports are exchanged for free ones, and `STAND_INS` says what runs in place of what is written.

A page runs from top to bottom in a folder that `furnish` fills; the first command that fails
ends it. HTTP errors fail curl.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token

from joker.cli import app

ROOT = Path(__file__).parents[2]
LEFT_OUT = {"docs/cli.md", "CHANGELOG.md"}
"""Usage lines, which another test keeps equal to the code, and what was true once."""

EXCUSES = {
    "network": "needs the internet",
    "installation": "installs packages",
    "containers": "needs a container engine",
    "cluster": "needs a cluster or a second machine",
    "GPU": "needs a GPU",
}

STAND_INS = {
    r"make run\b": "joker serve",  # what it does once it has installed the package
    r"\.venv/bin/": "",  # the environment that runs the tests
    r"(joker pretrain --config .*)": r"\1 --size tiny --budget 20k --block-size 32 --compile never",
}

SERVERS = {
    "joker serve": "8000",
    "joker worker": None,
    "mlflow ui": "5000",
    "mlflow models serve": "5000",
    "redis-server": "6379",
}
"""What runs until it is stopped, and the port it answers on unless ``--port`` says another."""

PROGRAMS = ("curl", "jq", "node", "redis-server")
TIMEOUT_SECONDS = 900

PRELUDE = """\
set -e -o pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
answers() {  # wait until a port is open, or a process has ended
  until (: < /dev/tcp/127.0.0.1/$1) 2>/dev/null; do kill -0 $2; sleep 0.1; done
}
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language and title, and why it is not run."""

    place: str
    language: str
    title: str | None
    text: str
    excuse: str | None

    @property
    def commands(self) -> list[str]:
        if self.language != "console":
            return []
        return re.findall(r"^\$ ((?:.*\\\n)*.*)", self.text, re.MULTILINE)


@cache
def tokens(page: str) -> list[Token]:
    return MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8"))


@cache
def blocks(page: str) -> list[Block]:
    found = []
    excuse = None
    for token in tokens(page):
        if token.type == "fence" and token.map is not None:
            language, _, options = token.info.strip().partition(" ")
            title = re.search(r'title="(.+?)"', options)
            place = f"{page}:{token.map[0] + 1}"
            found.append(Block(place, language, title and title[1], token.content, excuse))
        comment = re.fullmatch(r"<!-- not run: (.+) -->\s*", token.content)
        excuse = comment[1] if comment and token.type == "html_block" else None
    return found


def runs(block: Block) -> bool:
    if block.excuse:
        return False
    return bool(block.commands or block.title or block.language == "python")


FOLDERS = ("docs", "deploy")
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *(p for name in FOLDERS for p in ROOT.glob(f"{name}/**/*.md"))]
)
WRITTEN = [page for page in PAGES if page not in LEFT_OUT]
RUN = [page for page in WRITTEN if any(map(runs, blocks(page)))]


class Ports:
    """Free ports, each in place of one that a page names."""

    def __init__(self) -> None:
        self._free: dict[str, str] = {}

    def __getitem__(self, port: str) -> str:
        if port not in self._free:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._free[port] = str(free.getsockname()[1])
        return self._free[port]

    def exchange(self, text: str) -> str:
        named = r"((?:localhost|127\.0\.0\.1):|--port )(\d+)"
        return re.sub(named, lambda match: match[1] + self[match[2]], text)


def script(page: str, ports: Ports) -> str:
    """Return a page as one shell script that says which of its lines it is at."""
    return PRELUDE + "".join(
        f"echo {shlex.quote(f'{block.place}: {step.splitlines()[0]}')}\n{run}\n"
        for block in blocks(page)
        if runs(block)
        for step, run in steps(block, ports)
    )


def steps(block: Block, ports: Ports) -> Iterator[tuple[str, str]]:
    """Yield each step of a block as it is written, and as it is run."""
    text = ports.exchange(block.text)
    if block.title:
        yield f"the file {block.title}", f"cat > {block.title} <<'END OF FILE'\n{text}END OF FILE"
    elif block.language == "python":
        yield "a program", f"python - <<'END OF FILE'\n{text}END OF FILE"
    for command in block.commands:
        run = command
        for written, instead in STAND_INS.items():
            run = re.sub(written, instead, run)
        run = ports.exchange(run)
        server = re.match(rf"((?:\w+=\S* )*)({'|'.join(SERVERS)})\b", run)
        if server is not None:
            run = f"{server[1]}exec {run.removeprefix(server[1])}"
            run = in_background(run, SERVERS[server[2]], ports)
        yield command, run


def in_background(command: str, port: str | None, ports: Ports) -> str:
    started = f"{{ {command}\n}} &\n"
    if port is None:
        return started
    named = re.search(r"--port (\d+)", command)
    number = named[1] if named else ports[port]
    job = f"server_{number}"
    stopped = f'if [ "${job}" ]; then kill ${job}; wait ${job} || true; fi\n'
    return f"{stopped}{started}{job}=$!\nanswers {number} ${job}"


def environment(home: Path, ports: Ports) -> dict[str, str]:
    (home / ".curlrc").write_text(f"fail-with-body\nsilent\nshow-error\nmax-time = {60}\n")
    theirs = ("JOKER_", "MLFLOW_")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(theirs)},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CURL_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "JOKER_PORT": ports["8000"],
        "MLFLOW_PORT": ports["5000"],
    }


@pytest.mark.integration
@pytest.mark.parametrize("page", RUN)
def test_every_command_of_a_page_does_what_it_should(
    page: str, tmp_path: Path, furnish: Callable[[Path, str], None]
) -> None:
    ports = Ports()
    commands = script(page, ports)
    for program in PROGRAMS:
        if re.search(rf"\b{program}\b", commands) and shutil.which(program) is None:
            missing = pytest.fail if os.environ.get("CI") else pytest.skip
            missing(f"{program} is not installed")
    folder, home = tmp_path / "folder", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    furnish(folder, commands)
    (tmp_path / "page.sh").write_text(commands)
    with (tmp_path / "transcript").open("w+") as transcript:
        shell = subprocess.Popen(
            ["bash", "../page.sh"],
            cwd=folder,
            env=environment(home, ports),
            stdin=subprocess.DEVNULL,
            stdout=transcript,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = shell.wait(TIMEOUT_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
        transcript.seek(0)
        if code:
            pytest.fail(f"{page} failed here:\n{transcript.read()[-4000:]}", pytrace=False)


@pytest.mark.parametrize("page", WRITTEN)
def test_no_command_escapes_being_run(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.findall(r"^ *```", text, re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page)), "a block is not seen; is it indented too far?"
    for block in blocks(page):
        assert block.language not in {"bash", "sh", "shell"}, f"{block.place}: tag it console"
        shown = block.language == "console" or not re.search(r"^\$ ", block.text, re.MULTILINE)
        assert shown, f"{block.place}: it has commands; tag it console"
        assert block.commands or block.language != "console", f"{block.place}: no line has '$ '"


EXCUSED = [block for page in WRITTEN for block in blocks(page) if block.excuse]


@pytest.mark.parametrize("block", EXCUSED, ids=lambda block: block.place)
def test_a_command_that_is_not_run_has_a_reason_and_can_be_understood(block: Block) -> None:
    assert block.excuse in EXCUSES, f"{block.place}: the reasons are {', '.join(EXCUSES)}"
    assert block.commands, f"{block.place}: only commands need an excuse"
    for command in block.commands:
        words = shlex.split(command, comments=True)
        for word in words:
            if word.startswith(FOLDERS) and "/" in word:
                assert (ROOT / word).exists(), f"{block.place}: there is no {word}"
        if words[0] == "make":
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        if "joker" in words:
            check_options(words[words.index("joker") :], block.place)


@pytest.mark.parametrize("page", WRITTEN)
def test_a_command_inside_a_sentence_has_only_options_that_exist(page: str) -> None:
    for paragraph in tokens(page):
        for token in paragraph.children or []:
            if token.type == "code_inline" and re.match(r"joker [a-z]", token.content):
                check_options(token.content.split(), page)


def check_options(words: list[str], place: str) -> None:
    """Check that a joker command names verbs and options that there are."""
    command: Any = typer.main.get_command(app)
    options = set()
    for word in words[1:]:
        options |= {name for part in command.params for name in (*part.opts, *part.secondary_opts)}
        options |= {"-h", "--help"}
        if word.startswith("-"):
            assert word.partition("=")[0] in options, f"{place}: {words} has an unknown {word}"
        elif hasattr(command, "commands"):
            for verb in word.split("|"):
                assert verb in command.commands, f"{place}: {words} has an unknown verb {verb}"
            command = command.commands[verb]
