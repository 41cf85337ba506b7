from collections.abc import Callable
from pathlib import Path

import pytest

from joker.core.errors import DataError
from joker.data.download import DATASETS, Dataset, download

kagglehub = pytest.importorskip("kagglehub")
OWLS = Dataset("someone/owls", "owls.csv")


def test_the_two_public_sets_are_known() -> None:
    assert [dataset.slug for dataset in DATASETS] == [
        "jiriroz/qa-jokes",
        "cuddlefish/reddit-rjokes",
    ]


def answering(place: Path) -> Callable[[str], str]:
    """Return what Kaggle's client would, once it has fetched a data set into a cache."""

    def dataset_download(slug: str) -> str:
        assert slug == OWLS.slug
        return str(place)

    return dataset_download


def test_the_wanted_file_is_put_into_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache/versions/2").mkdir(parents=True)
    (tmp_path / "cache/versions/2/owls.csv").write_text("ID,Question,Answer\n")
    monkeypatch.setattr(kagglehub, "dataset_download", answering(tmp_path / "cache"))
    found = download(OWLS, tmp_path / "data")
    assert found == tmp_path / "data/owls.csv"
    assert found.read_text() == "ID,Question,Answer\n"


def test_a_failure_says_how_to_get_the_file_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kagglehub, "dataset_download", answering(tmp_path))
    with pytest.raises(DataError) as refused:
        download(OWLS, tmp_path / "data")
    said = str(refused.value)
    assert "there is no owls.csv in it" in said
    assert "https://www.kaggle.com/datasets/someone/owls" in said
    assert str(tmp_path / "data") in said
    assert "\n" not in said
