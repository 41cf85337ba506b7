import subprocess
import sys
from pathlib import Path

import pytest

JOKES = [
    ("Why do owls hum?", "They lost the words."),
    ("What is a clock's wish?", "More time."),
    ("Who guards the pantry?", "A cereal officer."),
    ("How does a map relax?", "It folds."),
]


def joker_data(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "joker", "data", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.csv"
    file.write_text("Setup,Punchline\n" + "".join(f"{q},{a}\n" for q, a in JOKES * 2))
    return file


def test_prepare_and_show_print_and_plot(mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    columns = ("--question-column", "setup", "--answer-column", "punchline")
    done = joker_data("prepare", "--jokes", mine, *columns, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "dropped: duplicate" in done.stdout
    assert "clusters (this folder)" in done.stdout
    assert not done.stderr

    shown = joker_data("show", out)
    assert shown.returncode == 0, shown.stderr
    assert "characters of answer" in shown.stdout
    assert (out / "statistics.png").is_file()
    assert joker_data("show", out, "--plot", tmp_path / "mine.png").returncode == 0
    assert (tmp_path / "mine.png").is_file()

    again = joker_data("prepare", "--jokes", mine, *columns, "--out", out)
    assert again.returncode == 2
    assert "--force" in again.stderr
    random = ("--split", "random", "--force", "--seed", "5")
    done = joker_data("prepare", "--jokes", mine, *columns, "--out", out, *random)
    assert done.returncode == 0
    assert "random (this folder)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["prepare", "--out", "out"], "nothing to prepare"),
        (["prepare", "--jokes", "none.csv", "--out", "out"], "none.csv"),
        (["prepare", "--rjokes", "mine.csv", "--out", "out"], "has no column 'q'"),
        (["prepare", "--qa-jokes", ".", "--out", "out"], "is a folder"),
        (["prepare", "--jokes", "mine.csv", "--out", "."], "is not a prepared folder"),
        (["show", "nowhere"], "nowhere"),
        (["show", "."], "prepared.json is missing"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    mine: Path, arguments: list[str], named: str
) -> None:
    done = joker_data(*arguments, cwd=mine.parent)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert not done.stdout
