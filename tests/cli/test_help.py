import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.cli import app as typer_cli
from typer.main import get_command
from typer.testing import CliRunner

from joker.cli import app
from joker.core import errors

ROOT = Path(__file__).parents[2]
HEAVY = [
    *("torch", "transformers", "mlflow", "pyarrow", "openvino", "openvino_genai", "matplotlib"),
    *("fastapi", "celery", "redis"),
]


def loaded_after(statement: str) -> list[str]:
    """Return which heavy libraries a fresh interpreter has loaded after a statement."""
    report = f"print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    code = f"import json, sys\n{statement}\n{report}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded: list[str] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def test_importing_the_package_loads_no_heavy_library() -> None:
    assert loaded_after("import joker, joker.cli") == []


def test_help_loads_no_heavy_library() -> None:
    run = "sys.argv[1:] = ['--help']\nfrom joker.cli import main"
    assert loaded_after(f"{run}\ntry: main()\nexcept SystemExit: pass") == []


def test_help_lists_every_exit_code_and_commands_in_the_order_of_need() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {0} | {kind.exit_code for kind in kinds if issubclass(kind, errors.JokerError)}
    assert {int(code) for code in re.findall(r"\* (\d+): ", shown)} == codes
    found = [shown.index(f"│ {verb} ") for verb in ("tell", "serve", "doctor", "data", "train")]
    assert found == sorted(found)


def commands(command: Any, words: str = "joker") -> Iterator[str]:
    """Yield the words of a command and of those below it."""
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{words} {name}")


@pytest.mark.parametrize("words", list(commands(get_command(app))))
def test_help_ends_with_examples_that_can_be_run(words: str) -> None:
    shown = CliRunner().invoke(app, [*words.split()[1:], "--help"], env={"COLUMNS": "200"}).output
    examples = re.findall(r"^ *\* (joker .*?) *$", shown, re.MULTILINE)
    assert examples
    for example in examples:
        assert example.startswith(words)
        named: Any = get_command(app)
        rest = shlex.split(example)[1:]
        while hasattr(named, "commands"):
            named = named.commands[rest.pop(0)]
        named.make_context(words, rest)  # raises for what it cannot parse


def test_the_command_line_page_is_the_commands_own_help() -> None:
    shown = CliRunner().invoke(typer_cli, ["joker.cli", "utils", "docs", "--name", "joker"])
    assert shown.output.strip() == (ROOT / "docs/cli.md").read_text(encoding="utf-8").strip(), (
        "docs/cli.md is old: run 'make docs'"
    )
