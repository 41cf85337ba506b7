from typing import Any

import pytest

from joker.core.errors import DataError
from joker.data.manifest import DataManifest, Leak, Overlap, SourceCounts

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


def test_a_manifest_survives_json() -> None:
    assert DataManifest.from_dict(MANIFEST.to_dict(), "here") == MANIFEST


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 99}, "has format version 99"),
        ({"leak": {"random": {"test": 1}}}, "is garbled"),
        ({"sources": 5}, "is garbled"),
        ({"train": 100}, "is garbled"),
        ({"surprise": 1}, "is garbled"),
    ],
)
def test_a_garbled_manifest_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        DataManifest.from_dict({**MANIFEST.to_dict(), **change}, "here")


@pytest.mark.parametrize("fields", [None, [], {}, {"train": 1}])
def test_other_json_is_no_manifest(fields: Any) -> None:
    with pytest.raises(DataError, match="here is not the manifest"):
        DataManifest.from_dict(fields, "here")


def test_rows_must_add_up() -> None:
    with pytest.raises(ValueError, match="12 rows"):
        SourceCounts(12, 9, {}, {"empty": 1}, {})
