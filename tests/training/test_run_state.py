from pathlib import Path

import pytest

from joker.core.errors import (
    ConfigError,
    DataError,
    InputError,
    ModelFolderError,
    TemplateError,
)
from joker.data.preparation import prepare
from joker.data.prepared import PreparedData
from joker.data.sources import Source
from joker.training.config import TrainingConfig
from joker.training.run_state import begin_run, resume_run

CONFIG = TrainingConfig(base="new:tiny", epochs=2.0)


def test_a_run_is_taken_up_with_the_settings_it_began_with(
    prepared: PreparedData, tmp_path: Path
) -> None:
    begun = begin_run(prepared, tmp_path / "model", CONFIG)
    assert resume_run(prepared, tmp_path / "model", TrainingConfig()) == begun
    assert resume_run(prepared, tmp_path / "model", CONFIG) == begun


def test_other_settings_are_refused(prepared: PreparedData, tmp_path: Path) -> None:
    begin_run(prepared, tmp_path / "model", CONFIG)
    with pytest.raises(ConfigError, match="uses the settings saved"):
        resume_run(prepared, tmp_path / "model", TrainingConfig(epochs=9.0))


def test_other_data_is_refused(prepared: PreparedData, joke_file: Path, tmp_path: Path) -> None:
    begin_run(prepared, tmp_path / "model", CONFIG)
    prepare([Source.custom(joke_file)], tmp_path / "other", split="random", seed=2)
    with pytest.raises(DataError, match="other"):
        resume_run(PreparedData.open(tmp_path / "other"), tmp_path / "model", CONFIG)


def test_nothing_to_resume_is_said(prepared: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no unfinished training"):
        resume_run(prepared, tmp_path / "model", CONFIG)


def test_a_run_that_never_got_to_a_checkpoint_can_begin_again(
    prepared: PreparedData, tmp_path: Path
) -> None:
    run = begin_run(prepared, tmp_path / "model", CONFIG)
    run.logs.mkdir()
    (run.logs / "events.out.tfevents.1.host").touch()
    assert begin_run(prepared, tmp_path / "model", TrainingConfig()).config == TrainingConfig()
    assert not run.logs.exists()


def test_an_unfinished_run_is_not_overwritten(prepared: PreparedData, tmp_path: Path) -> None:
    run = begin_run(prepared, tmp_path / "model", CONFIG)
    (run.checkpoints / "checkpoint-3").mkdir()
    (run.checkpoints / "checkpoint-3/complete").touch()
    with pytest.raises(ModelFolderError, match="--resume"):
        begin_run(prepared, tmp_path / "model", CONFIG)


def test_a_file_or_a_folder_in_use_is_refused(prepared: PreparedData, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "logs/runs").mkdir(parents=True)
    for out, named in (
        (tmp_path, "not empty"),
        (tmp_path / "logs", "not empty"),  # perhaps another program's
        (tmp_path / "notes.txt", "is a file"),
    ):
        with pytest.raises(ModelFolderError, match=named):
            begin_run(prepared, out, CONFIG)
    assert (tmp_path / "logs/runs").is_dir()
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("own", "asked"), [(True, False), (False, True)])
def test_a_layout_begins_with_the_punchline_where_either_says_so(
    prepared: PreparedData, tmp_path: Path, own: bool, asked: bool
) -> None:
    layout = tmp_path / "mine.json"
    layout.write_text(
        f'{{"name": "mine", "question_prefix": "[Q] ", "answer_prefix": " [A] ", '
        f'"punchline_first": {str(own).lower()}}}'
    )
    config = TrainingConfig(template=str(layout), punchline_first=asked)
    assert begin_run(prepared, tmp_path / "model", config).template.punchline_first


def test_a_layout_that_cannot_begin_with_the_punchline_leaves_no_folder(
    prepared: PreparedData, tmp_path: Path
) -> None:
    layout = tmp_path / "bare.json"
    layout.write_text('{"name": "bare", "question_prefix": "", "answer_prefix": " [A] "}')
    config = TrainingConfig(template=str(layout), punchline_first=True)
    with pytest.raises(TemplateError, match="question_prefix"):
        begin_run(prepared, tmp_path / "model", config)
    assert not (tmp_path / "model").exists()
