from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from joker.cli import main
from joker.core.model_folder import ModelFolder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["joker", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_json_is_one_object_on_standard_output(
    tiny_folder: ModelFolder,
    sample_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (tiny_folder.path, "--data", sample_file, "--limit", 15, "--generate", 2, "--json")
    assert run(monkeypatch, *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["jokes"] == 15
    for name in (
        "bits_per_byte",
        "answer_bits_per_byte",
        "legacy_perplexity",
        "punchline_retrieval_accuracy",
    ):
        assert found[name] > 0
    assert found["tries"] == 2


def test_a_report_to_read_is_the_default(
    tiny_folder: ModelFolder,
    sample_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, tiny_folder.path, "--data", sample_file, "--generate", 0) == 0
    shown = capsys.readouterr().out
    assert "bits per byte" in shown
    assert "13.64" in shown


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
    capsys: pytest.CaptureFixture[str],
    model: str,
    data: str,
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(monkeypatch, model or tiny_folder.path, "--data", data) == 2
    captured = capsys.readouterr()
    assert named in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
