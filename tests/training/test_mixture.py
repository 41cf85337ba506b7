from pathlib import Path

import numpy as np
import pytest
import torch

from joker.core.errors import DataError
from joker.data.shards import ShardWriter, TokenStream
from joker.training.mixture import MixedRows, make_plan
from joker.training.packing import IGNORED

END = 0
BLOCK = 8


@pytest.fixture
def streams(tmp_path: Path) -> dict[str, TokenStream]:
    """Return two sources whose tokens say where they stand."""
    for source, first, count in (("books", 1_000, 205), ("jokes", 5_000, 83)):
        writer = ShardWriter(tmp_path, source, 8192)
        writer.add([END if place % 5 == 0 else first + place for place in range(count)])
        writer.flush()
    return {source: TokenStream(tmp_path, source) for source in ("books", "jokes")}


def test_shares_hold_in_both_phases() -> None:
    plan = make_plan(10_000, {"books": 3, "jokes": 1}, {"jokes": 1}, decay=0.4, seed=1)
    assert np.mean(plan.source[:6_000] == plan.sources.index("books")) == pytest.approx(
        0.75, abs=0.02
    )
    assert (plan.source[6_000:] == plan.sources.index("jokes")).all()
    assert sum(plan.rows_of.values()) == 10_000


def test_places_of_each_source_count_up() -> None:
    plan = make_plan(100, {"books": 1, "jokes": 1}, {"jokes": 1}, decay=0.5, seed=1)
    for index in range(2):
        places = plan.place[plan.source == index]
        assert places.tolist() == list(range(len(places)))


def test_one_pass_reads_every_row_once_and_the_next_in_another_order(
    streams: dict[str, TokenStream],
) -> None:
    rows_a_pass = 205 // BLOCK - 1
    plan = make_plan(2 * rows_a_pass, {"books": 1}, {"books": 1}, decay=0.1, seed=1)
    rows = MixedRows(streams, plan, BLOCK, END, seed=1)
    starts = [rows._start(0, int(place)) for place in plan.place]
    first, second = starts[:rows_a_pass], starts[rows_a_pass:]
    for one in (first, second):
        assert (np.diff(sorted(one)) == BLOCK).all()
        assert max(one) + BLOCK <= 205
    assert np.argsort(first).tolist() != np.argsort(second).tolist()
    assert rows.passes()["books"] == pytest.approx(2 * rows_a_pass * BLOCK / 205)


def test_positions_begin_again_at_each_document(streams: dict[str, TokenStream]) -> None:
    plan = make_plan(20, {"books": 1, "jokes": 1}, {"jokes": 1}, decay=0.5, seed=1)
    rows = MixedRows(streams, plan, BLOCK, END, seed=1)
    for index in range(len(rows)):
        row = rows[index]
        for place in range(1, BLOCK):
            begins = int(row["input_ids"][place]) == END
            before = int(row["position_ids"][place - 1])
            assert int(row["position_ids"][place]) == (0 if begins else before + 1)
        assert int(row["labels"][0]) == IGNORED
        assert row["labels"][1:].equal(row["input_ids"][1:])


def test_same_seed_gives_the_same_rows(streams: dict[str, TokenStream]) -> None:
    def tokens(seed: int) -> torch.Tensor:
        plan = make_plan(30, {"books": 1, "jokes": 1}, {"jokes": 1}, decay=0.5, seed=seed)
        rows = MixedRows(streams, plan, BLOCK, END, seed=seed)
        return torch.stack([rows[index]["input_ids"] for index in range(len(rows))])

    assert tokens(1).equal(tokens(1))
    assert not tokens(1).equal(tokens(2))


def test_source_too_small_for_a_row_is_named(streams: dict[str, TokenStream]) -> None:
    plan = make_plan(4, {"jokes": 1}, {"jokes": 1}, decay=0.5, seed=1)
    with pytest.raises(DataError, match="jokes"):
        MixedRows(streams, plan, 64, END, seed=1)
