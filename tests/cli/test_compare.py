import sqlite3
from pathlib import Path

import pytest

from joker.core.model_folder import ModelFolder
from joker.data.preparation import prepare
from joker.data.sources import Source
from tests.command import joker

pytestmark = [
    pytest.mark.integration,
    # MLflow's own code is not free of warnings.
    pytest.mark.filterwarnings("default"),
]

LABELS = {"original-special", "separator-special", "words-plain"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, sample_file: Path) -> Path:
    """Return a folder in which ``joker compare`` has run, twice."""
    folder = tmp_path_factory.mktemp("compare")
    prepare([Source.custom(sample_file)], folder / "data", split="random", seed=1)
    options = ("--base", "new:tiny", "--max-steps", "2", "--compile", "never")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        for name in ("first.txt", "second.txt"):
            done = joker("compare", "--data", "data", "--out", "models", *options)
            assert done.returncode == 0, done.stderr
            (folder / name).write_text(done.stdout)
    return folder


def test_every_layout_has_a_model_and_the_table_names_the_best(compared: Path) -> None:
    folders = {path.name: ModelFolder.open(path) for path in compared.glob("models/*/")}
    assert folders.keys() == LABELS
    measured = {name: each.manifest.metrics for name, each in folders.items()}
    best = min(measured, key=lambda label: measured[label]["validation_bits_per_byte"])
    assert f"Best on validation jokes: {best}" in (compared / "first.txt").read_text()
    assert (compared / "models/comparison.png").stat().st_size > 0


def test_finished_layouts_are_not_trained_again(compared: Path) -> None:
    assert (compared / "first.txt").read_text() == (compared / "second.txt").read_text()


def test_one_parent_run_holds_a_child_for_every_layout(compared: Path) -> None:
    query = """
        select child.name from runs child
        join tags on tags.run_uuid = child.run_uuid and tags.key = 'mlflow.parentRunId'
        join runs parent on parent.run_uuid = tags.value
        where parent.name = 'compare-models'
    """
    with sqlite3.connect(compared / "mlflow.db") as store:
        assert {name for (name,) in store.execute(query)} == LABELS
