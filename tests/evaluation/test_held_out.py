from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from joker.core.errors import DataError
from joker.core.joke import Joke
from joker.data.prepared import PreparedData
from joker.evaluation.held_out import HeldOut


def test_a_prepared_folder_gives_its_test_split(prepared_folder: Path) -> None:
    held_out = HeldOut.open(prepared_folder)
    data = PreparedData.open(prepared_folder)
    assert held_out.jokes == [prepared.joke for prepared in data.jokes("test")]
    assert held_out.clusters == [prepared.cluster for prepared in data.jokes("test")]
    assert held_out.training == [prepared.joke for prepared in data.jokes("train")]
    assert held_out.facts["fingerprint"] == data.manifest.fingerprint
    assert held_out.facts["split"] == "random"


def test_a_file_gives_its_jokes_and_counts_rows_without_one(
    sample_file: Path, sample_jokes: list[Joke], tmp_path: Path
) -> None:
    joke_file = tmp_path / "jokes.csv"
    joke_file.write_bytes(sample_file.read_bytes() + b"Why is nobody answering?, ")
    held_out = HeldOut.open(joke_file)
    assert held_out.jokes == sample_jokes
    assert held_out.training is None
    assert held_out.facts == {
        "name": str(joke_file),
        "fingerprint": hashlib.sha256(joke_file.read_bytes()).hexdigest(),
        "rows_without_joke": 1,
    }


def test_texts_of_a_file_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    path.write_text('question,ANSWER\n"Q: why\n*so*? "," [because] "\n', encoding="utf-8")
    assert HeldOut.open(path).jokes == [Joke("Q: why\n*so*?", "[because]")]


def test_near_copies_in_a_file_are_one_cluster(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    rows = ["Why is a pond calm?,It never waves back at you", "Is a pond calm?,It never waves back"]
    path.write_text("\n".join(["Question,Answer", *rows, "Why is tea late?,It had to steep"]))
    first, second, third = HeldOut.open(path).clusters
    assert first == second != third


def test_a_sample_is_a_random_part_in_order(sample_file: Path, sample_jokes: list[Joke]) -> None:
    held_out = HeldOut.open(sample_file)
    sample = held_out.sample(5, seed=4)
    places = [sample_jokes.index(joke) for joke in sample.jokes]
    assert places == sorted(places) != list(range(5))
    assert sample.clusters == [held_out.clusters[place] for place in places]
    assert held_out.sample(5, seed=4) == sample


@pytest.mark.parametrize("count", [0, 20, 1000])
def test_a_sample_of_none_or_too_many_is_everything(sample_file: Path, count: int) -> None:
    held_out = HeldOut.open(sample_file)
    assert held_out.sample(count, seed=4) is held_out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Question,Reply\na,b\n", "no column 'answer'"),
        ("Question,Answer\n", "no rows"),
        ("Question,Answer\n , \n", "no joke to evaluate"),
        ("", "empty"),
    ],
)
def test_a_file_without_jokes_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        HeldOut.open(path)


def test_a_folder_that_is_not_prepared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="prepared"):
        HeldOut.open(tmp_path)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        HeldOut.open(tmp_path / "nowhere.csv")
