"""``joker`` in this process, for tests of what a command does: starting one takes seconds."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from joker.cli import main


def joker(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command; return its exit code and what it printed."""
    words = ["joker", *map(str, arguments)]
    printed, said = io.StringIO(), io.StringIO()
    code = 0
    with mock.patch.object(sys, "argv", words), redirect_stdout(printed), redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(words, code, printed.getvalue(), said.getvalue())
