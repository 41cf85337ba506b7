from __future__ import annotations

import json
from pathlib import Path

import pytest

from joker.core.model_folder import ModelFolder
from tests.command import joker


def test_json_is_one_object_on_standard_output(tiny_folder: ModelFolder, sample_file: Path) -> None:
    arguments = (tiny_folder.path, "--data", sample_file, "--limit", 15, "--generate", 2, "--json")
    done = joker("evaluate", *arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["jokes"] == 15
    for name in (
        "bits_per_byte",
        "answer_bits_per_byte",
        "legacy_perplexity",
        "punchline_retrieval_accuracy",
    ):
        assert found[name] > 0
    assert found["tries"] == 2


def test_a_report_to_read_is_the_default(tiny_folder: ModelFolder, sample_file: Path) -> None:
    done = joker("evaluate", tiny_folder.path, "--data", sample_file, "--generate", 0)
    assert done.returncode == 0, done.stderr
    assert "bits per byte" in done.stdout
    assert "13.64" in done.stdout


@pytest.mark.parametrize(
    ("model", "data", "named"),
    [
        ("nowhere", "nowhere.csv", "there is no model folder at nowhere"),
        ("", "nowhere.csv", "nowhere.csv"),
        ("", "empty", "empty is not a complete prepared folder"),
    ],
)
def test_a_mistake_is_one_sentence(
    tiny_folder: ModelFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    data: str,
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = joker("evaluate", model or tiny_folder.path, "--data", data)
    assert done.returncode == 2
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout
