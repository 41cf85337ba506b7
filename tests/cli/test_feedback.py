from __future__ import annotations

import csv
import json
import os
import re
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from joker.cli import app
from joker.core.errors import InputError
from joker.core.joke import GeneratedJoke
from joker.store import Store, Vote
from joker.training.filtering import read_jokes
from tests.command import joker
from tests.store.told import add, told


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/jokes.sqlite"
    store = Store(url)
    jokes: dict[Vote, GeneratedJoke] = {
        "up": told("Why?", 'He said "no",\nand left.'),
        "down": told("Où est l'élan?", "🫎 là-bas"),
        "report": told("Who?", "Nobody."),
    }
    for vote, joke in jokes.items():
        stored = add(store, joke)
        for client in ("ann", "bob"):
            store.vote(stored, client, vote)
    add(store, told("When?", "Never."))
    store.close()
    return url


def export(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["feedback", "export", *arguments])


@pytest.mark.parametrize("name", ["votes.csv", "votes.jsonl"])
def test_training_reads_what_is_exported(database: str, tmp_path: Path, name: str) -> None:
    done = export("--database", database, "--out", str(tmp_path / name))
    assert done.exit_code == 0, done.output
    assert done.stderr == f"3 jokes written to {tmp_path / name}\n"
    assert [(joke.question, joke.answer, score) for joke, score in read_jokes(tmp_path / name)] == [
        ("Why?", 'He said "no", and left.', 2),
        ("Où est l'élan?", "🫎 là-bas", 1),
        ("Who?", "Nobody.", 0),
    ]
    assert {path.name for path in tmp_path.iterdir()} <= {
        name,
        "jokes.sqlite",
        "jokes.sqlite-wal",
        "jokes.sqlite-shm",
    }


def test_without_a_file_it_prints_csv_with_the_votes(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOKER_DATABASE", database)
    done = export()
    rows = list(csv.DictReader(done.stdout.splitlines(keepends=True)))
    assert [(row["up"], row["down"], row["report"]) for row in rows] == [
        ("2", "0", "0"),
        ("0", "2", "0"),
        ("0", "0", "2"),
    ]


def test_too_few_votes_are_said_and_leave_the_old_file(database: str, tmp_path: Path) -> None:
    out = tmp_path / "votes.jsonl"
    out.write_text(json.dumps({"question": "Old?", "answer": "Yes.", "score": 2}))
    empty = f"sqlite:///{tmp_path}/empty.sqlite"
    done = export("--database", empty, "--out", str(out))
    assert "2 votes with a majority" in str(done.exception)
    assert "Old?" in out.read_text()


@pytest.mark.parametrize(
    ("minimum", "remedy"),
    [
        ("3", "collect more votes, or give --min-votes 1 if you rate alone"),
        ("2", "collect more votes, or give --min-votes 1 if you rate alone"),
        ("1", "collect more votes"),
    ],
)
def test_an_export_to_standard_output_without_jokes_fails_and_says_why(
    tmp_path: Path, minimum: str, remedy: str
) -> None:
    database = f"sqlite:///{tmp_path}/jokes.sqlite"
    if minimum == "2":  # one person has rated alone
        with closing(Store(database)) as store:
            store.vote(add(store, told()), "ann", "up")
    done = joker("feedback", "export", "--database", database, "--min-votes", minimum)
    assert done.returncode == 2
    assert done.stdout == "id,question,answer,score,up,down,report\n"
    assert done.stderr.startswith(f"joker: no joke in {database} has {minimum} vote")
    assert done.stderr.endswith(f"with a majority; {remedy}\n")


def test_models_are_compared_by_votes_and_picked_jokes_are_apart(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/jokes.sqlite"
    store = Store(database)
    stored = [store.add(told(f"Why {n}?", f"{n}."), model="old" if n else "new") for n in range(3)]
    stored.append(store.pool.add(told("Who?", "Me."), model="old", picked=True))
    votes: list[list[Vote]] = [["up"] * 3, ["up", "down"], ["down", "report"], ["up"]]
    for joke, cast in zip(stored, votes, strict=True):
        assert joke
        for client, vote in enumerate(cast):
            store.vote(joke.id, str(client), vote)
    store.close()
    done = CliRunner().invoke(app, ["feedback", "compare", "--database", database])
    assert done.exit_code == 0, done.output
    assert [re.split(r" *│ *", line.strip("│ ")) for line in done.stdout.splitlines()[3:-1]] == [
        ["new", "1", "3", "0", "0", "100.0%", "20.7%–100.0%"],
        ["old", "2", "1", "2", "1", "25.0%", "3.6%–75.1%"],
        ["old, picked by readers", "1", "1", "0", "0", "100.0%", "20.7%–100.0%"],
    ]


def test_without_votes_there_is_nothing_to_compare(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/empty.sqlite"
    done = CliRunner().invoke(app, ["feedback", "compare", "--database", database])
    assert "no joke in" in str(done.exception)


def test_reported_jokes_are_listed_and_restored(database: str) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["feedback", *arguments, "--database", database])

    done = run("reported")
    assert done.exit_code == 0, done.output
    ((joke_id, joke, at, reports),) = [
        re.split(r" *│ *", line.strip("│ ")) for line in done.stdout.splitlines()[3:-1]
    ]
    assert (joke, reports) == ("Who? Nobody.", "2")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", at)
    assert run("restore", joke_id).stdout == f"{joke_id} is shown again\n"
    assert run("restore", joke_id).stdout == f"{joke_id} was not reported\n"
    done = run("reported")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"no joke in {database} has been reported\n"


def test_an_unknown_id_restores_nothing(database: str) -> None:
    store = Store(database)
    ((joke, _),) = store.reported()
    done = joker("feedback", "restore", joke.id, "nowhere", "--database", database)
    assert done.returncode == 1
    assert done.stderr == (
        f"joker: there is no joke 'nowhere' in {database}; "
        "'joker feedback reported' lists the ids of reported jokes\n"
    )
    assert store.get(joke.id).hidden
    store.close()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--all"], "1 joke shown again\n"),
        (["--since", "2000-01-01"], "1 joke shown again\n"),
        (["--since", "9000-01-01T20:00+02:00"], "0 jokes shown again\n"),
    ],
)
def test_many_reports_are_deleted_at_once(database: str, arguments: list[str], shown: str) -> None:
    done = CliRunner().invoke(app, ["feedback", "restore", *arguments, "--database", database])
    assert (done.exit_code, done.stdout) == (0, shown)
    with closing(Store(database)) as store:
        assert store.count_reported() == (0 if shown.startswith("1") else 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the ids of jokes, or give either --all or --since"),
        (["nTqMPqsyIjKe", "--all"], "name the ids of jokes, or give either --all or --since"),
        (["--all", "--since", "2026-11-30"], "name the ids of jokes, or give"),
        (["--since", "yesterday"], "must be a date or time (UTC) such as 2026-11-30 or"),
    ],
)
def test_what_is_to_be_restored_is_said_in_one_way(
    database: str, arguments: list[str], said: str
) -> None:
    done = CliRunner().invoke(app, ["feedback", "restore", *arguments, "--database", database])
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
    with closing(Store(database)) as store:
        assert store.count_reported() == 1


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["--out", "votes.xlsx"], "--out must end in .csv or .jsonl", 2),
        (
            ["--database", "mysql://me:hush@host/db"],
            "--database (JOKER_DATABASE): the database must be",
            2,
        ),
        (["--database", "sqlite:////proc/none/jokes.sqlite"], "the store is down", 7),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    arguments: list[str],
    said: str,
    code: int,
) -> None:
    done = joker("feedback", "export", *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_not_there_is_named(database: str, tmp_path: Path) -> None:
    out = tmp_path / "nowhere" / "votes.csv"
    done = export("--database", database, "--out", str(out))
    assert f"cannot write {out}: {os.strerror(2)}" in str(done.exception)
