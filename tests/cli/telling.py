"""Running ``joker tell`` with a model in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from joker.cli import app
from joker.core.model_folder import ModelFolder


def tell(folder: ModelFolder, *arguments: str, input: str | None = None) -> Result:  # noqa: A002
    """Run the command with what standard input holds, and return what it printed."""
    command = ["tell", "--model", str(folder.path), *arguments]
    return CliRunner().invoke(app, command, input=input)
