from pathlib import Path

import pytest

from tests.command import joker

JOKES = [
    ("Why do owls hum?", "They lost the words."),
    ("What is a clock's wish?", "More time."),
    ("Who guards the pantry?", "A cereal officer."),
    ("How does a map relax?", "It folds."),
]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.csv"
    file.write_text("Setup,Punchline\n" + "".join(f"{q},{a}\n" for q, a in JOKES * 2))
    return file


def test_prepare_and_show_print_and_plot(mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    columns = ("--question-column", "setup", "--answer-column", "punchline")
    done = joker("data", "prepare", "--jokes", mine, *columns, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "dropped: duplicate" in done.stdout
    assert "clusters (this folder)" in done.stdout
    assert not done.stderr

    shown = joker("data", "show", out)
    assert shown.returncode == 0, shown.stderr
    assert "characters of answer" in shown.stdout
    assert (out / "statistics.png").is_file()
    assert joker("data", "show", out, "--plot", tmp_path / "mine.png").returncode == 0
    assert (tmp_path / "mine.png").is_file()

    again = joker("data", "prepare", "--jokes", mine, *columns, "--out", out)
    assert again.returncode == 2
    assert "--force" in again.stderr
    random = ("--split", "random", "--force", "--seed", "5")
    done = joker("data", "prepare", "--jokes", mine, *columns, "--out", out, *random)
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
    mine: Path, arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mine.parent)
    done = joker("data", *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert not done.stdout
