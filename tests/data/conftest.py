"""Joke files as people have them: our own jokes in the shapes of the public sets."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

WriteCsv = Callable[..., Path]
Pairs = Callable[[int], list[tuple[str, str]]]


@pytest.fixture
def pairs() -> Pairs:
    """Return ``make(count)``: questions and answers that share next to nothing."""

    def word(number: int) -> str:
        return "".join(
            "bcdfghklmnprstvz"[number // 16**place % 16] + "aeiou"[(number + place) % 5]
            for place in range(6)
        )

    def make(count: int) -> list[tuple[str, str]]:
        return [
            (f"Why is {word(n)} {n * 7919} {word(n)[::-1]}?", f"{word(n)[2:]} {n} {word(n) * 2}")
            for n in range(count)
        ]

    return make


@pytest.fixture
def write_csv(tmp_path: Path) -> WriteCsv:
    """Return ``write(name, header, rows)``, which writes a CSV file and returns its path."""

    def write(name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


@pytest.fixture
def qa_file(write_csv: WriteCsv, pairs: Pairs) -> Path:
    """Return a file like Data 1, with one of everything that is dropped or changed."""
    rows = [
        ("Why did the kettle quit the choir?", "It could only hold one note."),
        ("why did the kettle quit the choir", "It could only hold one note!!"),
        ("Q: What does a glacier say at parting?", "A: It takes an age. EDIT: spelling"),
        ("What do you call a sleepy lighthouse?", "[deleted]"),
        ("What do you call a polite volcano?", " "),
        *pairs(30),
    ]
    return write_csv(
        "jokes.csv", ["ID", "Question", "Answer"], [(i, *row) for i, row in enumerate(rows, 1)]
    )


@pytest.fixture
def rjokes_file(write_csv: WriteCsv) -> Path:
    """Return a file like Data 2, with a post of every outcome."""
    posts = [
        (
            "Why did the kettle quit the choir?",
            "It could only hold one note.\n\nI'll see myself out.",
        ),
        ("My umbrella left me...", "It said I never open up."),
        ("A day at the harbour", "Once there was a gull.\n\n" + "It flew and it flew. " * 30),
        (
            "What's your best joke about kettles?",
            "Here is mine, please post yours, I need many of them.",
        ),
        ("What is [removed]?", "[removed]"),
    ]
    return write_csv(
        "jokes_score_name_clean.csv",
        ["", "id", "score", "q", "a", "timestamp", "name"],
        [
            (number, f"p{number}", 10 * number, title, body, 1.4e9, "someone")
            for number, (title, body) in enumerate(posts)
        ],
    )
