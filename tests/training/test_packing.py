from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joker.core.template import TEMPLATES
from joker.core.tokenizer import EncodedJoke
from joker.training.base_model import open_base
from joker.training.packing import IGNORED, block_rows, pack_jokes, pad_jokes
from joker.training.trainer import token_losses

lengths = st.lists(st.integers(4, 40), min_size=1, max_size=60)


def encoded(length: int, first: int = 1) -> EncodedJoke:
    return EncodedJoke([0, *range(first, first + length - 2), 0], answer_start=length // 2)


@settings(deadline=None)
@given(lengths=lengths)
def test_every_joke_that_fits_stands_whole_in_one_row(lengths: list[int]) -> None:
    jokes = [encoded(length, 1 + 50 * index) for index, length in enumerate(lengths)]
    rows = pack_jokes(jokes, block_size=32, pad_id=0)
    flat = [tuple(row.tolist()) for row in rows.tensors["input_ids"]]
    fitting = [joke for joke in jokes if len(joke) <= 32]
    for joke in fitting:
        text = ",".join(map(str, joke.input_ids))
        assert sum(f",{text}," in f",{','.join(map(str, row))}," for row in flat) == 1
    assert rows.too_long == len(jokes) - len(fitting)
    assert rows.used == sum(len(joke) for joke in fitting)
    predicted = int((rows.tensors["labels"] != IGNORED).sum())
    assert predicted == sum(len(joke) - 1 for joke in fitting)


def test_best_fit_leaves_little_room() -> None:
    generator = torch.Generator().manual_seed(3)
    jokes = [encoded(int(n)) for n in torch.randint(12, 60, (2000,), generator=generator)]
    assert pack_jokes(jokes, block_size=128, pad_id=0).fill > 0.98


def test_rows_come_in_whole_batches() -> None:
    rows = pack_jokes([encoded(20)] * 7, block_size=32, pad_id=0, multiple=4)
    assert len(rows) == 8
    assert (rows.tensors["labels"][7] == IGNORED).all()


def test_the_answer_mask_covers_the_answer_and_its_end() -> None:
    joke = EncodedJoke([0, 11, 12, 13, 14, 0], answer_start=3)
    row = pack_jokes([joke], block_size=8, pad_id=0)[0]
    assert row["labels"].tolist() == [IGNORED, 11, 12, 13, 14, 0, IGNORED, IGNORED]
    assert row["labels"][row["answer_mask"]].tolist() == [13, 14, 0]


@pytest.mark.parametrize("rows_of", [pack_jokes, pad_jokes])
def test_only_what_is_to_be_learnt_is_predicted_with_its_weight(rows_of: Any) -> None:
    joke = EncodedJoke([0, 11, 12, 13, 0], answer_start=3)
    verdict = EncodedJoke([0, 21, 22, 0, 9], answer_start=4, learnt_from=4, weight=10.0)
    rows = rows_of([joke, verdict], block_size=10, pad_id=0).tensors
    learnt = rows["labels"] != IGNORED
    assert rows["labels"][learnt].tolist() == [11, 12, 13, 0, 9]
    assert rows["weights"][learnt].tolist() == [1, 1, 1, 1, 10]
    assert rows["labels"][rows["answer_mask"]].tolist() == [13, 0]


def test_padded_rows_hold_one_joke_each_and_are_as_long_as_the_longest_that_fits() -> None:
    jokes = [encoded(9), encoded(40), encoded(6)]
    rows = pad_jokes(jokes, block_size=32, pad_id=0, multiple=2)
    assert rows.tensors["input_ids"].shape == (2, 9)
    assert (rows.used, rows.too_long) == (15, 1)
    assert rows.tensors["labels"][1, 6:].tolist() == [IGNORED] * 3
    assert "position_ids" not in rows.tensors


def test_blocks_predict_only_what_is_to_be_learnt_with_its_weight() -> None:
    joke = EncodedJoke([0, 1, 2, 0], answer_start=2)
    verdict = EncodedJoke([0, 3, 0, 9], answer_start=3, learnt_from=3, weight=10.0)
    rows = block_rows([joke, verdict], block_size=3).tensors
    assert rows["input_ids"].tolist() == [[1, 2, 0], [3, 0, 9]]
    assert rows["labels"].tolist() == [[1, 2, 0], [IGNORED, IGNORED, 9]]
    assert rows["weights"].tolist() == [[1, 1, 1], [10, 10, 10]]
    assert "weights" not in block_rows([joke, joke], block_size=3).tensors


def test_blocks_join_jokes_without_start_tokens_and_drop_the_remainder() -> None:
    jokes = [EncodedJoke([0, 1, 2, 0], 2), EncodedJoke([0, 3, 4, 5, 0], 2)]
    rows = block_rows(jokes, block_size=3)
    assert rows.tensors["input_ids"].tolist() == [[1, 2, 0], [3, 4, 5]]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_packed_joke_costs_what_it_costs_alone(attention: str) -> None:
    torch.manual_seed(0)
    model = open_base("new:tiny", TEMPLATES["original"], ["Why not?"]).model.train(False)
    model.config.use_cache = False
    model.set_attn_implementation(attention)
    jokes = [encoded(9, 1), encoded(14, 20), encoded(6, 40), encoded(11, 5)]
    packed = pack_jokes(jokes, block_size=24, pad_id=0)
    with torch.no_grad():
        logits = model(
            input_ids=packed.tensors["input_ids"], position_ids=packed.tensors["position_ids"]
        ).logits
        together = token_losses(logits, packed.tensors["labels"]).sum()
        alone = torch.tensor(0.0)
        for joke in jokes:
            ids = torch.tensor([joke.input_ids])
            alone += token_losses(model(input_ids=ids).logits, ids).sum()
    assert together.item() == pytest.approx(alone.item(), rel=1e-5)
