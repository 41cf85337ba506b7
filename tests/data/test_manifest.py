import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from joker.core.errors import DataError
from joker.core.record import read_json
from joker.data.prepared import DataManifest, Leak, Overlap, SourceCounts

MANIFEST = DataManifest(
    fingerprint="ab12",
    split="clusters",
    seed=3,
    train=8,
    test=1,
    plain=2,
    clusters=7,
    sources={"owls": SourceCounts(12, 9, {"story": 2}, {"empty": 1}, {"white space": 4})},
    leak={"random": Leak(8, 1, 1), "clusters": Leak(8, 1, 0)},
    overlap=[Overlap("owls", "clocks", 5, 2, 3)],
)


def read(path: Path, fields: Any) -> DataManifest:
    path.write_text(json.dumps(fields))
    return read_json(DataManifest, path, DataError, remedy="prepare again")


def test_a_manifest_survives_json(tmp_path: Path) -> None:
    assert read(tmp_path / "here", asdict(MANIFEST)) == MANIFEST


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 99}, "has format version 99"),
        ({"leak": {"random": {"test": 1}}}, "'leak.random.train' is missing"),
        ({"sources": 5}, "'sources' must be an object, not 5"),
        ({"train": 100}, "the number of jokes is not the sum of those kept"),
        ({"surprise": 1}, "unknown setting 'surprise'"),
    ],
)
def test_a_garbled_manifest_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"here.*{said}"):
        read(tmp_path / "here", {**asdict(MANIFEST), **change})


@pytest.mark.parametrize("fields", [None, [], {}, {"train": 1}])
def test_other_json_is_no_manifest(fields: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="here has format version None"):
        read(tmp_path / "here", fields)


def test_rows_must_add_up() -> None:
    with pytest.raises(DataError, match=r"rows read \(12\)"):
        SourceCounts(12, 9, {}, {"empty": 1}, {})
