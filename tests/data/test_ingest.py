from collections.abc import Callable
from pathlib import Path

import pytest

from joker.data import ingest
from joker.data.ingest import Ingestion
from joker.data.sources import Source


def ignore(line: str) -> None:
    pass


def test_every_row_read_is_kept_plain_or_dropped(qa_file: Path, rjokes_file: Path) -> None:
    gathered = Ingestion()
    gathered.gather(Source.qa_jokes(qa_file), ignore)
    gathered.gather(Source.rjokes(rjokes_file), ignore)
    counts = gathered.counts()
    assert counts["qa-jokes"].dropped == {"deleted": 1, "empty": 1}
    assert counts["qa-jokes"].changed["edit notes"] == 1
    assert (counts["rjokes"].read, counts["rjokes"].kept) == (5, 2)
    assert counts["rjokes"].plain == {"story": 1}
    assert counts["rjokes"].dropped == {"request": 1, "deleted": 1}
    assert len(gathered.jokes) == len(gathered.origins) == 33 + 2
    assert [row[3] for row in gathered.plain] == ["p2"]
    assert {row[:2] for row in gathered.dropped} >= {("qa-jokes", "4"), ("rjokes", "p4")}


def test_a_joke_dropped_later_is_counted(qa_file: Path) -> None:
    gathered = Ingestion()
    gathered.gather(Source.qa_jokes(qa_file), ignore)
    gathered.drop(1, "duplicate")
    counts = gathered.counts()["qa-jokes"]
    assert counts.dropped["duplicate"] == 1
    assert counts.read == counts.kept + sum(counts.dropped.values())


def test_many_rows_parsed_by_processes_come_in_order(
    write_csv: Callable[..., Path],
    pairs: Callable[[int], list[tuple[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingest, "_BATCH_ROWS", 100)
    monkeypatch.setattr(ingest, "_PROCESSES", 2)
    file = write_csv("mine.csv", ["question", "answer"], pairs(1_050))
    gathered = Ingestion()
    said: list[str] = []
    gathered.gather(Source.own(file), said.append)
    assert [(joke.question, joke.answer) for joke in gathered.jokes] == pairs(1_050)
    assert said[0] == "reading mine: 100 rows"
