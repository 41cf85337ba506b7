from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from joker.core.errors import DataError
from joker.data import preparation
from joker.data.preparation import (
    DUPLICATE,
    Ingestion,
    prepare,
    split_by_cluster,
    split_by_joke,
)
from joker.data.prepared import DROPPED, PLAIN, PreparedData, SplitKind
from joker.data.sources import Source

WriteCsv = Callable[..., Path]
Pairs = Callable[[int], list[tuple[str, str]]]


@pytest.fixture
def sources(qa_file: Path, rjokes_file: Path) -> list[Source]:
    return [Source.qa_jokes(qa_file), Source.rjokes(rjokes_file)]


def prepared(sources: list[Source], out: Path, split: SplitKind, seed: int = 1) -> PreparedData:
    manifest = prepare(sources, out, split=split, seed=seed)
    data = PreparedData.open(out)
    assert data.manifest == manifest
    return data


def test_a_cluster_split_keeps_the_best_of_equal_jokes(
    sources: list[Source], tmp_path: Path
) -> None:
    data = prepared(sources, tmp_path / "out", "clusters")
    kettles = [
        j for j in (*data.jokes("train"), *data.jokes("test")) if "kettle" in j.joke.question
    ]
    assert [(joke.source, joke.score) for joke in kettles] == [("rjokes", 0)]
    assert data.manifest.sources["qa-jokes"].dropped[DUPLICATE] == 2
    assert ("qa-jokes", "2", DUPLICATE) in data.rows(DROPPED)


def test_a_random_split_keeps_all(sources: list[Source], tmp_path: Path) -> None:
    data = prepared(sources, tmp_path / "out", "random")
    assert data.manifest.train + data.manifest.test == 35
    assert DUPLICATE not in data.manifest.sources["qa-jokes"].dropped


@pytest.mark.parametrize("split", ["clusters", "random"])
def test_every_row_has_its_place_in_the_folder(
    sources: list[Source], tmp_path: Path, split: SplitKind
) -> None:
    data = prepared(sources, tmp_path / "out", split)
    kept = [*data.jokes("train"), *data.jokes("test")]
    assert len(kept) + len(data.rows(PLAIN)) + len(data.rows(DROPPED)) == 35 + 5
    assert len(data.jokes("test")) == data.manifest.test == round(0.1 * len(kept))


def test_the_leak_of_both_splits_is_told_whichever_was_chosen(
    sources: list[Source], write_csv: WriteCsv, pairs: Pairs, tmp_path: Path
) -> None:
    twice = write_csv("again.csv", ["question", "answer"], pairs(30))
    sources = [*sources, Source.custom(twice)]
    by_cluster = prepared(sources, tmp_path / "clusters", "clusters").manifest
    at_random = prepared(sources, tmp_path / "random", "random").manifest
    assert by_cluster.leak == at_random.leak
    assert by_cluster.leak["clusters"].copied == 0
    assert by_cluster.leak["random"].copied >= 4
    assert at_random.leak["random"].test == at_random.test
    assert by_cluster.leak["clusters"].train == by_cluster.train


def test_the_overlap_of_sources_is_told(
    sources: list[Source], write_csv: WriteCsv, pairs: Pairs, tmp_path: Path
) -> None:
    mine = [*pairs(10), ("Why is a fence so calm?", "It has good posts."), ("Hm", "Yes")]
    own = Source.custom(write_csv("mine.csv", ["question", "answer"], mine))
    overlap = prepared([*sources, own], tmp_path / "out", "clusters").manifest.overlap
    entry = next(e for e in overlap if (e.source, e.other) == ("mine", "qa-jokes"))
    assert (entry.questions, entry.exact, entry.near) == (11, 10, 10)


def test_the_seed_and_nothing_else_decides(sources: list[Source], tmp_path: Path) -> None:
    first, second, other = (
        prepared(sources, tmp_path / name, "clusters", seed).manifest.fingerprint
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second != other


def test_too_little_to_split_is_refused(write_csv: WriteCsv, tmp_path: Path) -> None:
    header = ["question", "answer"]
    one = Source.custom(write_csv("one.csv", header, [("Who?", "An owl."), ("Who?", "")]))
    with pytest.raises(DataError, match="these files contain only 1"):
        prepare([one], tmp_path / "out")
    equal = Source.custom(write_csv("equal.csv", header, [("Who hums?", "An owl.")] * 5))
    with pytest.raises(DataError, match="near-duplicates of one another"):
        prepare([equal], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prepare([equal], tmp_path / "out", split="random")


def test_inputs_must_be_there_and_differ(qa_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to prepare"):
        prepare([], tmp_path / "out")
    with pytest.raises(DataError, match="2 inputs are named 'jokes'"):
        prepare([Source.custom(qa_file), Source.custom(qa_file)], tmp_path / "out")


def test_the_target_is_checked_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear owl")
    with pytest.raises(DataError, match="is not a prepared folder"):
        prepare([Source.custom(tmp_path / "missing.csv")], tmp_path)


def test_work_in_progress_is_told(sources: list[Source], tmp_path: Path) -> None:
    said: list[str] = []
    prepare(sources, tmp_path / "out", report=said.append)
    assert said == ["comparing 35 jokes", "writing"]


KEYS = [f"owl {number}" for number in range(1_000)]


def test_a_random_split_tests_a_tenth() -> None:
    assert split_by_joke(KEYS, 1).sum() == 100


def test_a_seed_gives_the_same_split_on_every_machine() -> None:
    chosen = np.flatnonzero(split_by_joke(KEYS[:50], 7)).tolist()
    assert chosen == [0, 8, 19, 20, 41]
    assert not np.array_equal(split_by_joke(KEYS, 7), split_by_joke(KEYS, 8))


@pytest.mark.parametrize("seed", [0, 1, -5])
def test_clusters_stay_together(seed: int) -> None:
    clusters = np.random.default_rng(1).integers(0, 300, len(KEYS))
    test = split_by_cluster(KEYS, clusters, seed, np.ones(len(KEYS), np.bool_))
    assert test.sum() == 100
    for cluster in range(300):
        assert len(set(test[clusters == cluster])) <= 1


def test_a_cluster_too_large_for_the_test_set_trains() -> None:
    clusters = np.array([0] * 500 + list(range(1, 501)))
    test = split_by_cluster(KEYS, clusters, 1, np.ones(len(KEYS), np.bool_))
    assert not test[:500].any()
    assert test.sum() == 100


def test_only_counted_jokes_fill_the_test_set() -> None:
    counted = np.arange(len(KEYS)) % 2 == 0
    test = split_by_cluster(KEYS, np.arange(len(KEYS)) // 2, 1, counted)
    assert (test & counted).sum() == 50
    assert test.sum() == 100


@pytest.mark.parametrize(("count", "tested"), [(2, 1), (5, 1), (14, 1), (16, 2)])
def test_few_jokes_test_at_least_one(count: int, tested: int) -> None:
    assert split_by_joke(KEYS[:count], 1).sum() == tested


def ignore(line: str) -> None:
    pass


def test_every_row_read_is_kept_plain_or_dropped(qa_file: Path, rjokes_file: Path) -> None:
    ingestion = Ingestion()
    ingestion.add(Source.qa_jokes(qa_file), ignore)
    ingestion.add(Source.rjokes(rjokes_file), ignore)
    counts = ingestion.counts()
    assert counts["qa-jokes"].dropped == {"deleted": 1, "empty": 1}
    assert counts["qa-jokes"].changed["edit notes"] == 1
    assert (counts["rjokes"].read, counts["rjokes"].kept) == (5, 2)
    assert counts["rjokes"].plain == {"story": 1}
    assert counts["rjokes"].dropped == {"request": 1, "deleted": 1}
    assert len(ingestion.jokes) == len(ingestion.origins) == 33 + 2
    assert [row[3] for row in ingestion.plain] == ["p2"]
    assert {row[:2] for row in ingestion.dropped} >= {("qa-jokes", "4"), ("rjokes", "p4")}


def test_a_joke_dropped_later_is_counted(qa_file: Path) -> None:
    ingestion = Ingestion()
    ingestion.add(Source.qa_jokes(qa_file), ignore)
    ingestion.drop(1, "duplicate")
    counts = ingestion.counts()["qa-jokes"]
    assert counts.dropped["duplicate"] == 1
    assert counts.read == counts.kept + sum(counts.dropped.values())


def test_many_rows_parsed_by_processes_come_in_order(
    write_csv: WriteCsv, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "_BATCH_ROWS", 100)
    monkeypatch.setattr(preparation, "_PROCESSES", 2)
    file = write_csv("mine.csv", ["question", "answer"], pairs(1_050))
    ingestion = Ingestion()
    said: list[str] = []
    ingestion.add(Source.custom(file), said.append)
    assert [(joke.question, joke.answer) for joke in ingestion.jokes] == pairs(1_050)
    assert said[0] == "reading mine: 100 rows"
