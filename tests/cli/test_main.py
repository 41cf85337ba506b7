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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("serve --port x", "--port (JOKER_PORT) must be a whole number"),
        ("doctor --port 1.5", "--port (JOKER_PORT) must be a whole number"),
        ("worker --concurrency x", "--concurrency (JOKER_CONCURRENCY) must be a whole number"),
        ("tell --candidates x", "--candidates (JOKER_CANDIDATES) must be a whole number"),
        (
            "serve --engine x",
            "--engine (JOKER_ENGINE) must be one of 'openvino', 'remote', 'stub', not 'x'",
        ),
        ("tell --effort 9", "--effort must be less than or equal to 5"),
        ("tell -n x", "--count / -n must be a whole number"),
        ("train --data x --out y --epochs x", "--epochs must be a number"),
        (
            "data prepare --out x --split x",
            "--split must be one of 'clusters', 'random', not 'x'",
        ),
        ("feedback export --min-votes 0", "--min-votes must be greater than or equal to 1"),
    ],
)
def test_an_invalid_value_is_one_sentence_that_names_the_option_and_its_variable(
    arguments: str, said: str
) -> None:
    done = joker(*arguments.split())
    assert done.returncode == 2
    assert done.stderr == f"joker: {said}\n"


def test_an_option_and_its_variable_get_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    option = joker("serve", "--port", "x")
    monkeypatch.setenv("JOKER_PORT", "x")
    assert joker("serve").stderr == option.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["evaluate"], "'model'"), (["export", "--nothing"], "--nothing"), (["tel"], "'tel'")],
)
def test_a_mistake_in_a_command_itself_is_explained_by_its_usage(
    arguments: list[str], named: str
) -> None:
    done = joker(*arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Usage: joker" in done.stderr
