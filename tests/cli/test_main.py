import subprocess
import sys

import pytest

from joker.version import __version__


def joker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "joker", *arguments], capture_output=True, text=True, check=False
    )


def test_version_is_printed() -> None:
    assert joker("--version").stdout == f"joker {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--data", "nowhere", "--out", "model"], "nowhere"),
        (["train", "--data", ".", "--out", "model", "--config", "no.yaml"], "no.yaml"),
        (["train", "--data", ".", "--out", "model", "--epochs", "-1"], "epochs"),
        (["compare", "--data", "nowhere", "--out", "models"], "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments: list[str], named: str) -> None:
    done = joker(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert not done.stdout
