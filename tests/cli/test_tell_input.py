"""What ``joker tell`` reads from standard input."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from joker.core.model_folder import ModelFolder
from tests.cli.telling import tell


def test_words_are_joined_and_a_dash_reads_standard_input(tiny_folder: ModelFolder) -> None:
    quoted = tell(tiny_folder, "Why do cats", "--seed", "7")
    assert tell(tiny_folder, "Why", "do", "cats", "--seed", "7").stdout == quoted.stdout
    assert tell(tiny_folder, "-", "--seed", "7", input="Why do cats\n").stdout == quoted.stdout


Arrange = Callable[[Path], tuple[Any, Callable[[], object]]]


def a_pipe(content: bytes, *, open_end: bool) -> Arrange:
    """Return what stands for a pipe with this in it, whose writer has gone or stays."""

    def arrange(_: Path) -> tuple[Any, Callable[[], object]]:
        reader, writer = os.pipe()
        os.write(writer, content)
        if not open_end:
            os.close(writer)
        return reader, lambda: os.close(writer) if open_end else None

    return arrange


def a_file(folder: Path) -> tuple[Any, Callable[[], object]]:
    path = folder / "topic.txt"
    path.write_text("Why do cats\n")
    file = path.open()
    return file, file.close


def a_terminal(_: Path) -> tuple[Any, Callable[[], object]]:
    primary, secondary = pty.openpty()
    os.write(primary, b"Why do cats\n")
    return secondary, lambda: os.close(primary)


def nothing(_: Path) -> tuple[Any, Callable[[], object]]:
    return subprocess.DEVNULL, lambda: None


@pytest.mark.parametrize(
    ("arrange", "words", "same_as"),
    [
        (a_pipe(b"Why do cats\n", open_end=False), [], ["Why do cats"]),
        (a_file, [], ["Why do cats"]),
        (a_pipe(b"Why do dogs\n", open_end=False), ["Why do cats"], ["Why do cats"]),
        (a_pipe(b"", open_end=False), [], []),
        (a_pipe(b"", open_end=True), [], []),
        (a_terminal, [], []),
        (nothing, [], []),
    ],
    ids=["pipe", "file", "words", "ended pipe", "idle pipe", "terminal", "null"],
)
def test_a_pipe_is_read_if_it_has_something_and_nothing_is_waited_for(
    tiny_folder: ModelFolder,
    tmp_path: Path,
    arrange: Arrange,
    words: list[str],
    same_as: list[str],
) -> None:
    stdin, close = arrange(tmp_path)
    command = [sys.executable, "-m", "joker", "tell", *words, "--seed", "7"]
    command += ["--model", str(tiny_folder.path)]
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=120)
    close()
    assert done.returncode == 0, done.stderr
    assert done.stdout == tell(tiny_folder, *same_as, "--seed", "7").stdout


def test_a_closed_standard_input_is_no_prompt(tiny_folder: ModelFolder) -> None:
    command = f"{sys.executable} -m joker tell --seed 7 --model {tiny_folder.path} <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == tell(tiny_folder, "--seed", "7").stdout


def test_a_closed_standard_input_cannot_be_read_on_request(tiny_folder: ModelFolder) -> None:
    command = f"{sys.executable} -m joker tell - --model {tiny_folder.path} <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "joker: standard input is closed; give the words as arguments\n"


def test_input_in_another_encoding_is_no_traceback(tiny_folder: ModelFolder) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "joker", "tell", "--model", str(tiny_folder.path)]
    done = subprocess.run(
        command, input="Why do caf\u00e9s".encode("latin-1"), capture_output=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


def test_an_endless_pipe_is_refused_as_too_long(tiny_folder: ModelFolder) -> None:
    command = f"yes | {sys.executable} -m joker tell --model {tiny_folder.path}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
