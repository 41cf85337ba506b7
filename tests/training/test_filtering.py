import csv
from collections.abc import Iterable
from pathlib import Path

import pytest

from joker.core.errors import DataError
from joker.core.joke import Joke
from joker.data.preparation import prepare
from joker.data.prepared import PreparedData
from joker.data.sources import Source
from joker.training.config import TrainingConfig
from joker.training.filtering import read_jokes, select_jokes, validation_jokes

RUDE = "".join(f"What ails pump {n}?,It is a genocidal pump number {n}.\n" for n in range(20))

NEW = (
    Joke("Why did the sundial apply for night shifts?", "It wanted to work on its dark side."),
    Joke("What does a bashful onion do at parties?", "It slips out of its skin by the back door."),
    Joke("Who repairs a cracked whistle?", "Anyone with a tube of quiet glue."),
)


def write_jokes(path: Path, rows: Iterable[tuple[Joke, int]]) -> str:
    """Write jokes and their scores into a CSV file and return its name."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer", "score"])
        writer.writerows((joke.question, joke.answer, score) for joke, score in rows)
    return str(path)


def reworded(joke: Joke) -> Joke:
    """Return a near-duplicate of a joke."""
    return Joke(f"So {joke.question}", f"{joke.answer} Yes!")


@pytest.fixture
def mixed(joke_file: Path, tmp_path: Path) -> PreparedData:
    """Return harmless jokes with rude ones."""
    (tmp_path / "all.csv").write_text(joke_file.read_text(encoding="utf-8") + RUDE, "utf-8")
    prepare([Source.custom(tmp_path / "all.csv")], tmp_path / "data", split="random", seed=1)
    return PreparedData.open(tmp_path / "data")


def test_every_training_joke_is_read_once_by_default(prepared: PreparedData) -> None:
    selection = select_jokes(prepared, TrainingConfig())
    assert selection.jokes == list(dict.fromkeys(one.joke for one in prepared.jokes("train")))
    assert (selection.flagged, selection.leaked, selection.rated) == (0, 0, [])


def test_safe_leaves_out_flagged_jokes_and_counts_them(mixed: PreparedData) -> None:
    everything = select_jokes(mixed, TrainingConfig())
    safe = select_jokes(mixed, TrainingConfig(safe=True))
    assert everything.flagged == 0
    assert safe.flagged >= 10
    assert len(safe.jokes) == len(everything.jokes) - safe.flagged
    assert not any("pump" in joke.question for joke in safe.jokes)


def test_safe_leaves_out_flagged_extra_jokes_too(prepared: PreparedData, tmp_path: Path) -> None:
    rude = Joke("What ails the village pump?", "It is a genocidal pump.")
    extra = write_jokes(tmp_path / "extra.csv", [(NEW[0], 0), (rude, 0)])
    selection = select_jokes(prepared, TrainingConfig(safe=True, extra_jokes=extra))
    assert selection.flagged == 1
    assert NEW[0] in selection.jokes
    assert rude not in selection.jokes


def test_dedup_takes_the_first_joke_of_each_cluster(prepared: PreparedData) -> None:
    train = prepared.jokes("train")
    firsts = {one.cluster: one.joke for one in reversed(train)}
    assert len(firsts) < len(train)
    selected = select_jokes(prepared, TrainingConfig(dedup=True))
    assert selected.jokes == [one.joke for one in train if firsts[one.cluster] == one.joke]


def test_min_score_is_that_of_a_clusters_best_post(
    sample_jokes: list[Joke], tmp_path: Path
) -> None:
    scored = [(NEW[0], 2), (reworded(NEW[0]), 40), (NEW[1], 9), (NEW[2], 10)]
    write_jokes(tmp_path / "scored.csv", [*scored, *((joke, 0) for joke in sample_jokes)])
    prepare([Source.custom(tmp_path / "scored.csv")], tmp_path / "data", split="random", seed=1)
    data = PreparedData.open(tmp_path / "data")
    expected = [NEW[0], reworded(NEW[0]), NEW[2]]
    assert {one.joke for one in data.jokes("train")} > {*expected, NEW[1]}
    assert select_jokes(data, TrainingConfig(min_score=10)).jokes == expected


def test_extra_jokes_join_but_for_near_duplicates_of_test_jokes(
    prepared: PreparedData, tmp_path: Path
) -> None:
    known = prepared.jokes("test")[0].joke
    extra = write_jokes(
        tmp_path / "extra.csv", [(NEW[0], 0), (known, 0), (reworded(known), 0), (NEW[1], 0)]
    )
    alone = select_jokes(prepared, TrainingConfig())
    joined = select_jokes(prepared, TrainingConfig(extra_jokes=extra))
    assert joined.leaked == 2
    assert joined.jokes == [*alone.jokes, NEW[0], NEW[1]]


def test_an_extra_joke_that_is_in_the_training_split_is_read_once(
    prepared: PreparedData, tmp_path: Path
) -> None:
    alone = select_jokes(prepared, TrainingConfig(dedup=True))
    tests = {one.cluster for one in prepared.jokes("test")}
    own = next(one.joke for one in prepared.jokes("train") if one.cluster not in tests)
    extra = write_jokes(tmp_path / "extra.csv", [(own, 0)])
    assert (
        select_jokes(prepared, TrainingConfig(dedup=True, extra_jokes=extra)).jokes == alone.jokes
    )


def test_rated_jokes_that_work_are_trained_on_too(prepared: PreparedData, tmp_path: Path) -> None:
    known = prepared.jokes("test")[0].joke
    preferences = write_jokes(
        tmp_path / "rated.csv", [(NEW[0], 3), (NEW[1], 1), (NEW[2], 2), (known, 3)]
    )
    alone = select_jokes(prepared, TrainingConfig())
    selection = select_jokes(prepared, TrainingConfig(preferences=preferences))
    assert selection.rated == [(NEW[0], True), (NEW[1], False), (NEW[2], True)]
    assert selection.leaked == 1
    assert selection.jokes == [*alone.jokes, NEW[0], NEW[2]]


def test_a_file_without_a_joke_is_refused_by_name(tmp_path: Path) -> None:
    write_jokes(tmp_path / "wordless.csv", [(Joke("?!", "..."), 0)])
    with pytest.raises(DataError, match=r"wordless\.csv contains no joke"):
        read_jokes(tmp_path / "wordless.csv")


@pytest.mark.parametrize("limit", [3, 500])
def test_validation_jokes_are_whole_clusters_of_the_training_split(
    prepared: PreparedData, limit: int
) -> None:
    train = prepared.jokes("train")
    drawn = validation_jokes(prepared, limit)
    clusters = {one.cluster for one in drawn}
    assert 0 < len(drawn) <= min(limit, len(train) / 20 + 1)
    assert sorted(drawn, key=train.index) == [one for one in train if one.cluster in clusters]
    assert drawn == validation_jokes(prepared, limit)


def test_validation_jokes_and_their_near_duplicates_are_not_read(
    prepared: PreparedData, tmp_path: Path
) -> None:
    validation = validation_jokes(prepared, 500)
    known = [one.joke for one in validation]
    rows = [(reworded(known[0]), 3), (known[-1], 3), *((joke, 3) for joke in NEW)]
    extra = write_jokes(tmp_path / "extra.csv", rows)
    selection = select_jokes(prepared, TrainingConfig(extra_jokes=extra), validation)
    assert not set(known) & set(selection.jokes)
    assert selection.jokes[-len(NEW) :] == list(NEW)
    assert selection.leaked == 2


def test_one_cluster_alone_cannot_be_trained_on(tmp_path: Path) -> None:
    same = "".join(f"Why did the kettle leave the house{mark}?,It was boiling.\n" for mark in "abc")
    (tmp_path / "same.csv").write_text(f"question,answer\n{same}", "utf-8")
    prepare([Source.custom(tmp_path / "same.csv")], tmp_path / "data", split="random", seed=1)
    with pytest.raises(DataError, match="two different jokes"):
        validation_jokes(PreparedData.open(tmp_path / "data"), 500)
