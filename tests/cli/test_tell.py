from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import shutil
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from joker.cli import app
from joker.core import model_folder
from joker.core.errors import GenerationError, InputError, ModelFolderError
from joker.core.joke import GeneratedJoke, Joke
from joker.core.model_folder import PICKED_JOKES, ModelFolder
from joker.generation import teller
from joker.store import IN_MEMORY, Store, Votes
from tests.cli.telling import tell


def test_a_joke_is_a_question_line_and_an_answer_line(
    tiny_folder: ModelFolder, sample_jokes: list[Joke]
) -> None:
    result = tell(tiny_folder, "Why do", "--seed", "7")
    assert result.exit_code == 0
    expected = [f"Q: {joke.question}\nA: {joke.answer}\n" for joke in sample_jokes]
    assert result.stdout in expected
    assert result.stdout.startswith("Q: Why do")
    assert result.stderr == ""


def test_json_is_a_list_of_questions_and_answers(tiny_folder: ModelFolder) -> None:
    arguments = ["Why do", "-n", "3", "--seed", "7", "--temperature", "1.2", "--top-k", "50"]
    result = tell(tiny_folder, *arguments, "--top-p", "0.95", "--json")
    jokes = json.loads(result.stdout)
    names = {field.name for field in fields(GeneratedJoke)} | {"picked"}
    assert [set(joke) for joke in jokes] == [names] * 3
    assert not any(joke["picked"] for joke in jokes)
    assert jokes[0]["seed"] == 7
    assert all(joke["question"].startswith("Why do") and joke["answer"] for joke in jokes)


def test_the_same_seed_tells_the_same_jokes(tiny_folder: ModelFolder) -> None:
    arguments = ["-n", "3", "--temperature", "1.5", "--max-attempts", "20", "--seed"]
    first, again, other = (tell(tiny_folder, *arguments, seed) for seed in ("7", "7", "8"))
    assert first.stdout == again.stdout != other.stdout


def test_a_drawn_seed_is_shown_and_tells_the_joke_again(tiny_folder: ModelFolder) -> None:
    first = tell(tiny_folder)
    seed = first.stderr.split()[-1]
    assert tell(tiny_folder, "--seed", seed).stdout == first.stdout


def test_a_drawn_seed_stands_in_the_json_alone(tiny_folder: ModelFolder) -> None:
    first = tell(tiny_folder, "--json")
    assert first.stderr == ""
    seed = str(json.loads(first.stdout)[0]["seed"])
    assert tell(tiny_folder, "--json", "--seed", seed).stdout == first.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--exclude-categories", "rude"],
        ["--exclude-categories", "racist,"],
        ["--exclude-categories", "racist", "--unsafe"],
        ["-n", "0"],
        ["--seed", "-1"],
        ["--max-attempts", "0"],
        ["--candidates", "0"],
        ["--candidates", "4", "--effort", "2"],
        ["--rate"],
        ["--temperature", "nan"],
        ["--top-p", "0"],
        ["--top-k", "-1"],
        ["--max-new-tokens", "0"],
        ["why " * 1000],
    ],
)
def test_values_that_cannot_be_used_are_refused(
    tiny_folder: ModelFolder, arguments: list[str]
) -> None:
    result = tell(tiny_folder, *arguments)
    assert isinstance(result.exception, InputError)
    assert result.stdout == ""


def test_jokes_that_succeeded_are_shown_before_the_failure(tiny_folder: ModelFolder) -> None:
    once = ["--max-attempts", "1", "--candidates", "1"]
    result = tell(tiny_folder, "-n", "9", "--temperature", "2", *once, "--seed", "1", "--json")
    assert isinstance(result.exception, GenerationError)
    assert 0 < len(json.loads(result.stdout)) < 9


def test_no_bundled_model_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(model_folder, "BUNDLED", tmp_path / "bundled")
    result = CliRunner().invoke(app, ["tell"])
    assert isinstance(result.exception, ModelFolderError)
    assert "--model" in str(result.exception)


def test_the_bundled_model_is_the_default(
    tiny_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "BUNDLED", tiny_folder.path)
    assert CliRunner().invoke(app, ["tell", "Why"]).stdout.startswith("Q: Why")


def test_a_terminal_shows_text_as_text(tiny_folder: ModelFolder) -> None:
    prompt = "Why [bold]:smile:\x1b[2J what is a mirror's favorite hobby?"
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "joker", "tell", prompt, "--max-attempts", "99", "--seed", "1"]
    done = subprocess.run(
        [*command, "--model", str(tiny_folder.path)],
        stdout=secondary,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        check=True,
    )
    os.close(secondary)
    shown = os.read(primary, 100_000).decode()
    os.close(primary)
    assert "Why [bold]:smile: [2J what is a mirror's favorite hobby?" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b[1" in shown  # the answer is emphasised
    assert done.stderr == b""


def test_a_wrong_model_is_complained_about_once(tmp_path: Path) -> None:
    environment = os.environ | {"JOKER_MODEL": str(tmp_path / "nowhere")}
    command = [sys.executable, "-m", "joker", "tell"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"joker: --model (JOKER_MODEL): there is no model folder at {tmp_path}/nowhere\n"
    )


def test_an_effort_is_a_number_of_candidates(tiny_folder: ModelFolder) -> None:
    sure = ["--seed", "7", "--max-attempts", "20", "--temperature", "1.5"]
    for effort, candidates in ("1", "4"), ("3", "16"):
        tried = tell(tiny_folder, *sure, "--effort", effort)
        assert tried.stdout == tell(tiny_folder, *sure, "--candidates", candidates).stdout
    assert isinstance(tell(tiny_folder, "--effort", "6").exception, InputError)


def test_jokes_are_printed_as_they_come(
    tiny_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of jokes that are drawn in turn, the first is printed before the second is drawn."""
    printed: list[int] = []
    draw = teller._Drafting.draw

    def note(self: teller._Drafting, numbers: list[int], attempt: int) -> Any:
        printed.append(len(capture.getvalue().splitlines()) // 2)
        return draw(self, numbers, attempt)

    capture = io.StringIO()
    monkeypatch.setattr(teller._Drafting, "draw", note)
    arguments = ["-n", "2", "--candidates", "64", "--seed", "7"]
    with contextlib.redirect_stdout(capture):
        app(["tell", "--model", str(tiny_folder.path), *arguments], standalone_mode=False)
    assert printed == [0, 1]


def test_a_vote_is_stored_with_its_joke(tiny_folder: ModelFolder, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'jokes.db'}"
    primary, secondary = pty.openpty()
    os.write(primary, b"x\nup\n\n")
    command = [sys.executable, "-m", "joker", "tell", "-n", "2", "--rate", "--seed", "7"]
    done = subprocess.run(
        [*command, "--model", str(tiny_folder.path), "--max-attempts", "99"],
        stdin=secondary,
        capture_output=True,
        text=True,
        env={**os.environ, "JOKER_DATABASE": database, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    os.close(secondary)
    os.close(primary)
    assert done.stderr.count("[u]p, [d]own, [r]eport or [s]kip?") == 3
    store = Store(database)
    (voted,) = store.voted()
    store.close()
    assert voted.votes == Votes(up=1)
    assert f"Q: {voted.question}\nA: {voted.answer}\n" in done.stdout


INTERRUPTED = """
import os, signal
from joker.cli import main
from joker.engines.engine import Scheduler
from joker.generation.teller import Teller

pick, step, steps = Teller._pick, Scheduler.step, []

def pick_and_count(*arguments):
    steps.append(0)
    return pick(*arguments)

def step_and_interrupt(self):
    outputs = step(self)
    if steps:
        steps[0] += 1
        if steps[0] == 5:
            os.kill(os.getpid(), signal.SIGINT)
    return outputs

Teller._pick, Scheduler.step = pick_and_count, step_and_interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
main()
"""
"""Presses Ctrl-C in the fifth step after the first jokes were drafted."""


def tell_until_interrupted(
    folder: ModelFolder, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-c", INTERRUPTED, "tell", "--model", str(folder.path)),
            *("-n", "200", "--candidates", "1", "--seed", "1", *arguments),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def check_interrupted(folder: ModelFolder, *arguments: str) -> None:
    """Check that Ctrl-C keeps the jokes told so far, and says nothing of the engine."""
    printed = tell_until_interrupted(folder, *arguments)
    as_json = tell_until_interrupted(folder, *arguments, "--json")
    for done in printed, as_json:
        assert done.returncode == 130
        assert done.stderr == ""
    told = told_by(printed)
    assert 0 < len(told) < 200
    rows = json.loads(as_json.stdout)
    assert [Joke(row["question"], row["answer"]) for row in rows] == told


def test_ctrl_c_keeps_what_was_told(tiny_folder: ModelFolder) -> None:
    check_interrupted(tiny_folder, "--engine", "stub")


PICKED = [Joke("Why did the lamp blush?", "It saw the plug."), Joke("Why so?", "Why not?")]


@pytest.fixture
def picked_folder(
    tiny_folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModelFolder:
    """Make a model with picked jokes the default, and return it."""
    shutil.copytree(tiny_folder.path, tmp_path / "model")
    lines = [
        json.dumps({"question": joke.question, "answer": joke.answer, "seed": 1, "attempts": 1})
        for joke in PICKED
    ]
    (tmp_path / "model" / PICKED_JOKES).write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(model_folder, "BUNDLED", tmp_path / "model")
    monkeypatch.setenv("JOKER_DATABASE", f"sqlite:///{tmp_path / 'jokes.db'}")
    return ModelFolder.open(tmp_path / "model")


def tell_any(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["tell", *arguments], catch_exceptions=False)


def told_by(result: Result | subprocess.CompletedProcess[str]) -> list[Joke]:
    lines = [line.partition(": ")[2] for line in result.stdout.splitlines()]
    return [Joke(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)]


def no_engine(*_: object) -> None:
    pytest.fail("the model was loaded")


@pytest.mark.usefixtures("picked_folder")
def test_picked_jokes_are_told_first_and_once_each_without_loading_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("joker.compose.open_engine", no_engine)
    first, second = tell_any(), tell_any("me", "a", "joke", "--json")
    assert "picked by readers; --fresh" in first.stderr
    (other,) = json.loads(second.stdout)
    assert other["picked"]
    assert {*told_by(first), Joke(other["question"], other["answer"])} == set(PICKED)


def test_json_of_a_model_that_cannot_be_loaded_is_empty(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["tell", "--json", "--model", str(tmp_path / "nowhere")])
    assert result.exit_code != 0
    assert result.stdout == ""


@pytest.mark.usefixtures("picked_folder")
def test_a_pool_that_is_off_needs_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_DATABASE", "mysql://nobody/nothing")
    monkeypatch.setenv("JOKER_POOL_SIZE", "0")
    assert len(told_by(tell_any())) == 1


@pytest.mark.usefixtures("picked_folder")
def test_how_to_repeat_invented_jokes_names_what_was_allowed() -> None:
    result = tell_any("-n", "4", "--unsafe")
    options = result.stderr.strip().partition(", with ")[2].split()
    assert options[-1] == "--unsafe"
    assert told_by(tell_any(*options)) == told_by(result)[2:]


@pytest.mark.usefixtures("picked_folder")
def test_the_model_invents_what_the_picked_jokes_leave_open_and_says_so() -> None:
    result = tell_any("-n", "4")
    told = told_by(result)
    assert set(told[:2]) == set(PICKED)
    assert not set(told[2:]) & set(PICKED)
    said, _, options = result.stderr.strip().partition(", with ")
    assert said == "2 picked by readers, 2 invented just now"
    assert told_by(tell_any(*options.split())) == told[2:]
    assert told_by(tell_any())[0] not in PICKED


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fresh"],
        ["Why did", "--fresh"],
        ["Why so?"],
        ["What"],
        ["--seed", "7"],
        ["--temperature", "1"],
        ["--effort", "1"],
    ],
)
@pytest.mark.usefixtures("picked_folder")
def test_who_asks_for_something_gets_a_new_joke(arguments: list[str]) -> None:
    assert told_by(tell_any(*arguments))[0] not in PICKED


@pytest.mark.parametrize("words", [["why", "did", "the"], ["plugs"], ["a joke about a lamp"]])
@pytest.mark.usefixtures("picked_folder")
def test_a_picked_joke_that_fits_the_words_is_told_once_and_then_the_model_invents(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("joker.compose.open_engine", no_engine)
        first = tell_any(*words)
    assert told_by(first) == PICKED[:1]
    assert "picked by readers; --fresh" in first.stderr
    again = tell_any("why", "did", "the", "--max-attempts", "99")
    assert told_by(again)[0] not in PICKED


@pytest.mark.usefixtures("picked_folder")
def test_without_a_pool_the_model_invents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_POOL_SIZE", "0")
    assert told_by(tell_any())[0] not in PICKED


def test_jokes_that_were_picked_later_are_told_too(picked_folder: ModelFolder) -> None:
    assert set(told_by(tell_any("-n", "2"))) == set(PICKED)
    later = Joke("Why now?", "Readers took their time.")
    with (picked_folder.path / PICKED_JOKES).open("a") as file:
        file.write(json.dumps(asdict(later) | {"seed": 1, "attempts": 1}) + "\n")
    assert told_by(tell_any()) == [later]


@pytest.mark.usefixtures("picked_folder")
def test_a_user_id_without_a_name_is_told_picked_jokes(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", no_name)
    assert told_by(tell_any())[0] in PICKED


@pytest.mark.usefixtures("picked_folder")
def test_a_vote_on_a_picked_joke_counts_for_that_joke(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.modules["joker.cli.tell"], "_check_terminal", lambda *_: None)
    told = CliRunner().invoke(app, ["tell", "--rate"], input="d\n", catch_exceptions=False)
    store = Store(f"sqlite:///{tmp_path / 'jokes.db'}")
    (voted,) = store.voted()
    store.close()
    assert voted.picked
    assert voted.votes == Votes(down=1)
    assert f"Q: {voted.question}\nA: {voted.answer}\n" in told.stdout


@pytest.mark.usefixtures("picked_folder")
def test_a_vote_is_taken_where_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["joker.cli.tell"], "_check_terminal", lambda *_: None)
    monkeypatch.setenv("JOKER_DATABASE", IN_MEMORY)
    told = CliRunner().invoke(app, ["tell", "--rate"], input="d\n", catch_exceptions=False)
    assert told.exit_code == 0
    assert any(f"Q: {joke.question}\nA: {joke.answer}\n" in told.stdout for joke in PICKED)


@pytest.mark.integration
def test_openvino_tells_the_same_jokes_for_the_same_seed(
    served_folder: ModelFolder, sample_jokes: list[Joke]
) -> None:
    arguments = ["-n", "3", "--seed", "7", "--engine", "openvino", "--json"]
    first, again = tell(served_folder, *arguments), tell(served_folder, *arguments)
    assert first.stdout == again.stdout
    jokes = {Joke(joke["question"], joke["answer"]) for joke in json.loads(first.stdout)}
    assert jokes <= set(sample_jokes)


@pytest.mark.integration
def test_ctrl_c_keeps_what_openvino_told_without_a_noise(served_folder: ModelFolder) -> None:
    check_interrupted(served_folder)
