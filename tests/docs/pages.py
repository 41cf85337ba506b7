r"""A page of the documentation as a shell session.

How a page is read, for whoever writes one:

- A ``console`` block holds commands behind ``$ ``, one that ends in ``\`` goes on in the next
  line; lines without ``$ `` show what comes out and are not compared.
- A block with ``title="NAME"`` becomes the file NAME. A ``python`` block without title is run.
- What runs until it is stopped (`SERVERS`) goes to the background, with or without ``&``; a second
  one on the same port replaces the first.
- ``<!-- not run: REASON -->`` in front of a block excuses it, for a reason of `EXCUSES`.
- Ports are exchanged for free ones, and `STAND_INS` says what runs in place of what is written.

A page runs from top to bottom; the first command that fails ends it. HTTP errors fail curl.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

EXCUSES = {
    "network": "needs the internet",
    "installation": "installs packages",
    "containers": "needs a container engine",
    "cluster": "needs a cluster or a second machine",
    "GPU": "needs a GPU",
    "hours": "takes hours",
    "data": "needs the jokes of the data sets",
}

STAND_INS = {
    r"make run\b": "joker serve",  # what it does once it has installed the package
    r"\.venv/bin/": "",  # the environment that runs the tests
    # The tiny base knows no English words, only the markers of the default template.
    r"--template words (?=--epochs)": "",
}

SERVERS = {
    "joker serve": "8000",
    "joker worker": None,
    "mlflow ui": "5000",
    "mlflow models serve": "5000",
    "redis-server": "6379",
}
"""What runs until it is stopped, and the port it answers on unless ``--port`` says another."""

TIMEOUT_SECONDS = 900

PRELUDE = """\
set -e -o pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
answers() {  # wait until a port is open; fail if the process has ended
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
        """Its commands as they are written."""
        if self.language != "console":
            return []
        return re.findall(r"^\$ ((?:.*\\\n)*.*)", self.text, re.MULTILINE)

    @property
    def runs(self) -> bool:
        """Whether there is anything to do."""
        return not self.excuse and bool(self.commands or self.title or self.language == "python")


def parse(text: str) -> list[Token]:
    """Parse Markdown."""
    return MarkdownIt().parse(text)


def blocks(name: str, text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found = []
    excuse = None
    for token in parse(text):
        if token.type == "fence" and token.map is not None:
            language, _, options = token.info.strip().partition(" ")
            title = re.search(r'title="(.+?)"', options)
            place = f"{name}:{token.map[0] + 1}"
            found.append(Block(place, language, title and title[1], token.content, excuse))
        comment = re.fullmatch(r"<!-- not run: (.+) -->\s*", token.content)
        excuse = comment[1] if comment and token.type == "html_block" else None
    return found


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
        """Return a text with other ports of this machine."""
        named = r"((?:localhost|127\.0\.0\.1):|--port )(\d+)"
        return re.sub(named, lambda match: match[1] + self[match[2]], text)


def script(page: list[Block], ports: Ports) -> str:
    """Return a page as one shell script that says when it comes to which step."""
    return PRELUDE + "".join(
        f"echo $SECONDS s, {shlex.quote(f'{block.place}: {step.splitlines()[0]}')}\n{run}\n"
        for block in page
        if block.runs
        for step, run in _steps(block, ports)
    )


def _steps(block: Block, ports: Ports) -> Iterator[tuple[str, str]]:
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
            run = f"{server[1]}exec {run.removeprefix(server[1]).removesuffix(' &')}"
            run = _in_background(run, SERVERS[server[2]], ports)
        yield command, run


def _in_background(command: str, port: str | None, ports: Ports) -> str:
    started = f"{{ {command}\n}} &\n"
    if port is None:
        return started
    named = re.search(r"--port (\d+)", command)
    number = named[1] if named else ports[port]
    job = f"server_{number}"
    stopped = f'if [ "${job}" ]; then kill ${job}; wait ${job} || true; fi\n'
    return f"{stopped}{started}{job}=$!\nanswers {number} ${job}"


def run(commands: str, folder: Path, ports: Ports) -> tuple[bool, str]:
    """Run a script in a folder; return whether all went well, and all that was said."""
    home = folder.with_name("home")
    home.mkdir()
    (home / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\nmax-time = 120\n")
    (home / "page.sh").write_text(commands)
    with (home / "transcript").open("w+") as transcript:
        shell = subprocess.Popen(
            ["bash", home / "page.sh"],
            cwd=folder,
            env=_environment(home, ports),
            stdin=subprocess.DEVNULL,
            stdout=transcript,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            well = shell.wait(TIMEOUT_SECONDS) == 0
        except subprocess.TimeoutExpired:
            well = False
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        transcript.seek(0)
        return well, transcript.read()


def _environment(home: Path, ports: Ports) -> dict[str, str]:
    theirs = ("JOKER_", "MLFLOW_")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(theirs)},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CURL_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "JOKER_PORT": ports["8000"],
        "JOKER_CANDIDATES": "8",  # each draft takes a while
        "JOKER_POOL_SIZE": "0",  # what drafts while it idles would slow the commands down
        "MLFLOW_PORT": ports["5000"],
        # MLflow's pages would start four workers and a scheduler, each a Python of its own.
        "MLFLOW_WORKERS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
