"""Which of a model's jokes ship with it, by its readers' verdicts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from joker.core.fingerprints import Fingerprints
from joker.core.joke import GeneratedJoke, Joke, punchline_key
from joker.core.model_folder import ModelFolder
from joker.generation.moderation import Moderator
from tools.pick_jokes import best_of_each, main


def draft(question: str, answer: str, *, original: bool = True) -> GeneratedJoke:
    return GeneratedJoke(question, answer, seed=1, attempts=1, original=original, similarity=0.1)


LAMP = draft("Why did the lamp retire?", "It was burnt out.")
KETTLE = draft("Why did the kettle blush?", "It saw the teapot's spout.")
CLOCK = draft("Why was the clock alone?", "It was two-faced.")
OTHER_LAMP = draft("Why was the candle sad?", "Because it was burnt out.")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    def run(*arguments: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["pick_jokes.py", *arguments])
        main()

    drafts = [asdict(one) for one in (LAMP, KETTLE, CLOCK)]
    (tmp_path / "drafts.json").write_text(json.dumps(drafts))
    (tmp_path / "people.csv").write_text("Question,Answer\nWhy is tea wet?,It fell in the pot.\n")
    return run


def mix(run: Callable[..., None], tmp_path: Path) -> dict[str, int]:
    """Mix the jokes; return the number of each line by its question."""
    run(
        *("mix", "drafts.json", "--people", "people.csv", "--share", "1"),
        *("--lines", "lines.txt", "--key", "key.json"),
    )
    lines = (tmp_path / "lines.txt").read_text().splitlines()
    found = [line.partition(" Q: ") for line in lines]
    return {text.partition(" A: ")[0]: int(number) for number, _, text in found}


def test_readers_see_numbered_lines_with_human_jokes_among_them(
    run: Callable[..., None], tmp_path: Path
) -> None:
    shown = set(mix(run, tmp_path))
    assert shown == {LAMP.question, KETTLE.question, CLOCK.question, "Why is tea wet?"}


def test_of_each_punchline_the_best_rated_question_is_drafted() -> None:
    rated = [(-2.0, LAMP), (-1.0, CLOCK), (-0.5, OTHER_LAMP), (-3.0, KETTLE)]
    assert best_of_each(rated) == [OTHER_LAMP, CLOCK, KETTLE]


@pytest.mark.integration
def test_drafts_are_new_jokes_with_different_punchlines_and_start_with_the_prompts(
    run: Callable[..., None], served_folder: ModelFolder, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    shutil.copytree(served_folder.path, path)
    known = Joke("Why is tea wet?", "It fell in the pot.")
    Fingerprints.of([known]).save(path)  # all that the model tells is new
    (tmp_path / "prompts.txt").write_text("Why did the\nWhat did the\n")
    run("draft", str(path), "--hours=0.001", "--prompts=prompts.txt", "--out=drafts.json")
    drafts = [GeneratedJoke(**one) for one in json.loads((tmp_path / "drafts.json").read_text())]
    assert len(drafts) > 1
    assert all(one.original and not Moderator.default().check(str(one)) for one in drafts)
    assert len({punchline_key(one.answer) for one in drafts}) == len(drafts)
    assert all(one.score is not None for one in drafts)
    assert {one.question[:12] for one in drafts} <= {"Why did the ", "What did the"}


def test_a_joke_is_picked_if_all_its_readers_find_that_it_works(
    run: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = mix(run, tmp_path)
    lamp, kettle, clock = (at[one.question] for one in (LAMP, KETTLE, CLOCK))
    tea = at["Why is tea wet?"]
    (tmp_path / "a.txt").write_text(f"{lamp} 2\n{kettle} 3\n{clock} 2\n{tea} 3\n")
    (tmp_path / "b.txt").write_text(f"{lamp} 3\n{kettle} 3\n{clock} X\n{tea} 3\n")
    run("pick", "key.json", "a.txt", "b.txt", "--out", "picked.jsonl")
    picked = [json.loads(line) for line in (tmp_path / "picked.jsonl").read_text().splitlines()]
    assert picked == [asdict(KETTLE), asdict(LAMP)]
    assert "draft: 3 jokes, 6 verdicts, 83% work" in capsys.readouterr().out


def test_a_line_that_nobody_read_is_named(run: Callable[..., None], tmp_path: Path) -> None:
    mix(run, tmp_path)
    (tmp_path / "a.txt").write_text("0 2\n")
    with pytest.raises(SystemExit, match="nobody read line 1 and 2 others"):
        run("pick", "key.json", "a.txt", "--out", "picked.jsonl")


def test_what_is_no_verdict_is_named(run: Callable[..., None], tmp_path: Path) -> None:
    mix(run, tmp_path)
    (tmp_path / "a.txt").write_text("0 good\n")
    with pytest.raises(SystemExit, match="'0 good' is not a number and a score"):
        run("pick", "key.json", "a.txt", "--out", "picked.jsonl")
