import subprocess
import sys

import pytest

from joker.version import __version__
from tests.command import joker


def test_version_is_printed() -> None:
    printed = subprocess.check_output([sys.executable, "-m", "joker", "--version"], text=True)
    assert printed == f"joker {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--data", "nowhere", "--out", "model"], "nowhere"),
        (["train", "--data", ".", "--out", "model", "--config", "no.yaml"], "no.yaml"),
        (["train", "--data", ".", "--out", "model", "--epochs", "-1"], "epochs"),
        (["compare", "--data", "nowhere", "--out", "models"], "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2_before_pytorch_is_loaded(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("joker.training.finetune", "joker.training.compare"):
        monkeypatch.setitem(sys.modules, module, None)
    done = joker(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert not done.stdout
