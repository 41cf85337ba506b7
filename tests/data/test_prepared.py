import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joker.core.errors import DataError, MissingDependencyError
from joker.core.joke import Joke
from joker.data.prepared import (
    DROPPED,
    JOKES,
    MANIFEST,
    PLAIN,
    DataManifest,
    Leak,
    PreparedData,
    PreparedJoke,
    SourceCounts,
    fingerprint,
    write_prepared,
)

ROWS = [
    ("Why do owls hum?", "No words. 🦉", "owls", "1", 41, 0, "train"),
    ("Who reads all night?", "An owl.", "owls", "2", None, 1, "test"),
    ("What is a clock's wish?", "More time.", "clocks", "1", -3, 2, "train"),
]
TABLES: dict[str, Any] = {
    JOKES: ROWS,
    PLAIN: [("A day", "It passed.\n\nSlowly.", "owls", "3", 5, "story")],
    DROPPED: [],
}


def counts(kept: int, plain: dict[str, int]) -> SourceCounts:
    return SourceCounts(kept + sum(plain.values()), kept, plain, {}, {})


MADE = DataManifest(
    fingerprint=fingerprint(ROWS),
    split="random",
    seed=1,
    train=2,
    test=1,
    plain=1,
    clusters=3,
    sources={"owls": counts(2, {"story": 1}), "clocks": counts(1, {})},
    leak={"random": Leak(2, 1, 0), "clusters": Leak(2, 1, 0)},
    overlap=[],
)


@pytest.fixture
def folder(require: Callable[[str], None], tmp_path: Path) -> Path:
    require("pyarrow")
    write_prepared(tmp_path / "data", TABLES, MADE, force=False)
    return tmp_path / "data"


def test_what_was_written_is_read_in_order(folder: Path) -> None:
    data = PreparedData.open(folder)
    assert data.manifest == MADE
    assert data.jokes("test") == [
        PreparedJoke(Joke("Who reads all night?", "An owl."), "owls", "2", None, 1, "test")
    ]
    assert [joke.source for joke in data.jokes("train")] == ["owls", "clocks"]
    assert data.rows(PLAIN) == TABLES[PLAIN]
    assert data.rows(DROPPED) == []


def test_the_fingerprint_is_pinned_and_sees_every_change() -> None:
    assert fingerprint(ROWS).startswith("c4187af20aa340f1")
    for place, value in enumerate(("x", "x", "x", "x", 42, 9, "test")):
        changed = (*ROWS[0][:place], value, *ROWS[0][place + 1 :])
        assert fingerprint([changed, *ROWS[1:]]) != fingerprint(ROWS)


def test_nothing_else_is_left_beside_the_folder(folder: Path) -> None:
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_a_missing_folder_or_file_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no prepared folder at .*nowhere"):
        PreparedData.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match=f"{MANIFEST} is missing"):
        PreparedData.open(tmp_path)
    (folder / JOKES).unlink()
    with pytest.raises(DataError, match=f"{JOKES} is missing"):
        PreparedData.open(folder)


@pytest.mark.parametrize("text", ["", "{", '{"train": 1}', "\udcff"])
def test_a_garbled_manifest_is_one_sentence(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as refused:
        PreparedData.open(folder)
    assert MANIFEST in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_garbled_table_is_refused(folder: Path) -> None:
    (folder / JOKES).write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(DataError, match=f"cannot read .*{JOKES}"):
        PreparedData.open(folder).jokes("train")


def test_a_table_changed_afterwards_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_prepared(other, {**TABLES, JOKES: ROWS[:2] + ROWS[:1]}, MADE, force=False)
    shutil.copy(other / JOKES, folder / JOKES)
    with pytest.raises(DataError, match="does not match prepared"):
        PreparedData.open(folder).jokes("train")


def test_a_prepared_folder_is_replaced_only_by_force(folder: Path) -> None:
    changed = replace(MADE, seed=2)
    with pytest.raises(DataError, match="--force"):
        write_prepared(folder, TABLES, changed, force=False)
    write_prepared(folder, TABLES, changed, force=True)
    assert PreparedData.open(folder).manifest.seed == 2
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_another_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear owl")
    with pytest.raises(DataError, match="is not a prepared folder"):
        write_prepared(tmp_path, TABLES, MADE, force=True)
    with pytest.raises(DataError, match="is not a prepared folder"):
        write_prepared(tmp_path / "diary.txt", TABLES, MADE, force=True)
    assert (tmp_path / "diary.txt").read_text() == "dear owl"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_prepared(tmp_path / "data", TABLES, MADE, force=False)
    assert PreparedData.open(tmp_path / "data").manifest == MADE


def test_a_failed_write_leaves_the_old_folder(folder: Path) -> None:
    with pytest.raises(TypeError):
        write_prepared(folder, {**TABLES, PLAIN: [(1, 2, 3, 4, 5, 6)]}, MADE, force=True)
    assert PreparedData.open(folder).jokes("test")
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_prepared(tmp_path / "file" / "data", TABLES, MADE, force=False)


def test_without_pyarrow_the_missing_part_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = PreparedData.open(folder)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match=r"gpt2-the-joker\[train\]"):
        data.jokes("train")


def test_the_manifest_is_plain_json(folder: Path) -> None:
    fields = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert fields["leak"]["clusters"]["copied"] == 0
