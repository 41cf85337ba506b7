"""What a stranger does first: ask the model that comes with the package, without PyTorch."""

import json
import subprocess
import sys

import pytest

from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke, punchline_key
from joker.core.model_folder import ModelFolder, bundled_model
from joker.generation.moderation import Moderator

pytestmark = pytest.mark.integration

WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "mlflow", "pyarrow"):
    sys.modules[name] = None
from joker.cli import main
main()
"""


@pytest.fixture(scope="module")
def told() -> list[dict[str, str]]:
    options = ("-n", "10", "--candidates", "4", "--seed", "1", "--json")
    command = [sys.executable, "-c", WITHOUT_TORCH, "tell", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    jokes: list[dict[str, str]] = json.loads(done.stdout)
    return jokes


def test_it_tells_as_many_jokes_as_asked(told: list[dict[str, str]]) -> None:
    assert len(told) == 10
    assert all(joke["question"] and joke["answer"] for joke in told)


def test_its_questions_differ(told: list[dict[str, str]]) -> None:
    assert len({joke["question"] for joke in told}) >= 9


def test_none_of_its_jokes_is_offensive(told: list[dict[str, str]]) -> None:
    withholds = Moderator.default().withholds
    assert not [joke for joke in told if withholds(f"{joke['question']}\n{joke['answer']}")]


def test_its_folder_describes_itself() -> None:
    folder = ModelFolder.open(bundled_model())
    assert folder.has_openvino
    assert folder.manifest.metrics["bits_per_byte"] < 2.5
    assert all(training["safe"] is True for training in folder.manifest.earlier)


def test_its_picked_jokes_are_new_inoffensive_and_different() -> None:
    folder = ModelFolder.open(bundled_model())
    picked = folder.read_picked_jokes()
    fingerprints = Fingerprints.load(folder.path)
    assert fingerprints is not None
    assert len({punchline_key(joke.answer) for joke in picked}) == len(picked) >= 150
    for joke in picked:
        assert joke.tokens > 0
        assert not Moderator.default().check(str(joke))
        assert not fingerprints.estimate(Joke(joke.question, joke.answer)).near_duplicate
