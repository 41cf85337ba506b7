from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joker.core.fingerprints import stock_phrases
from joker.core.joke import Joke
from joker.core.template import TEMPLATES, Template
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.training.base_model import open_base
from joker.training.filtering import Selection
from joker.training.packing import IGNORE_INDEX, block_rows, encode_selection, pack_jokes, pad_jokes
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
    predicted = int((rows.tensors["labels"] != IGNORE_INDEX).sum())
    assert predicted == sum(len(joke) - 1 for joke in fitting)


def test_best_fit_leaves_little_room() -> None:
    generator = torch.Generator().manual_seed(3)
    jokes = [encoded(int(n)) for n in torch.randint(12, 60, (2000,), generator=generator)]
    assert pack_jokes(jokes, block_size=128, pad_id=0).fill > 0.98


def test_rows_come_in_whole_batches() -> None:
    rows = pack_jokes([encoded(20)] * 7, block_size=32, pad_id=0, multiple=4)
    assert len(rows) == 8
    assert (rows.tensors["labels"][7] == IGNORE_INDEX).all()


def test_the_answer_mask_covers_the_answer_and_its_end() -> None:
    joke = EncodedJoke([0, 11, 12, 13, 14, 0], answer_start=3)
    row = pack_jokes([joke], block_size=8, pad_id=0)[0]
    assert row["labels"].tolist() == [IGNORE_INDEX, 11, 12, 13, 14, 0, IGNORE_INDEX, IGNORE_INDEX]
    assert row["labels"][row["answer_mask"]].tolist() == [13, 14, 0]


@pytest.mark.parametrize("rows_of", [pack_jokes, pad_jokes])
def test_only_what_is_to_be_learnt_is_predicted_with_its_weight(rows_of: Any) -> None:
    joke = EncodedJoke([0, 11, 12, 13, 0], answer_start=3)
    verdict = EncodedJoke([0, 21, 22, 0, 9], answer_start=4, learned_from=4, weight=10.0)
    rows = rows_of([joke, verdict], block_size=10, pad_id=0).tensors
    learned = rows["labels"] != IGNORE_INDEX
    assert rows["labels"][learned].tolist() == [11, 12, 13, 0, 9]
    assert rows["weights"][learned].tolist() == [1, 1, 1, 1, 10]
    assert rows["labels"][rows["answer_mask"]].tolist() == [13, 0]


def test_padded_rows_hold_one_joke_each_and_are_as_long_as_the_longest_that_fits() -> None:
    jokes = [encoded(9), encoded(40), encoded(6)]
    rows = pad_jokes(jokes, block_size=32, pad_id=0, multiple=2)
    assert rows.tensors["input_ids"].shape == (2, 9)
    assert (rows.used, rows.too_long) == (15, 1)
    assert rows.tensors["labels"][1, 6:].tolist() == [IGNORE_INDEX] * 3
    assert "position_ids" not in rows.tensors


def test_blocks_predict_only_what_is_to_be_learnt_with_its_weight() -> None:
    joke = EncodedJoke([0, 1, 2, 0], answer_start=2)
    verdict = EncodedJoke([0, 3, 0, 9], answer_start=3, learned_from=3, weight=10.0)
    rows = block_rows([joke, verdict], block_size=3).tensors
    assert rows["input_ids"].tolist() == [[1, 2, 0], [3, 0, 9]]
    assert rows["labels"].tolist() == [[1, 2, 0], [IGNORE_INDEX, IGNORE_INDEX, 9]]
    assert rows["weights"].tolist() == [[1, 1, 1], [10, 10, 10]]
    assert block_rows([joke, joke], block_size=3).tensors["weights"].tolist() == [[1, 1, 1]] * 2


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


STOCK = [
    Joke("Why did the bicycle lie down?", "It was two tired."),
    Joke("Why did the tandem stay in bed?", "It was two tired"),
    Joke("Why did the scooter fall over?", "it was TWO tired!"),
]
OTHERS = [
    Joke("Why was the broom late?", "It swept in."),
    Joke("Why was the mop late?", "It swept in."),
    Joke("What do you call a punctual owl?", "A night watch."),
]
FLAT = Joke("Why is a table?", "Because of the chairs.")


@pytest.fixture(params=[True, False], ids=["punchline first", "question first"])
def tokenizer(request: pytest.FixtureRequest) -> JokeTokenizer:
    template: Template = replace(TEMPLATES["original"], punchline_first=request.param)
    texts = [joke.question for joke in STOCK]
    return open_base("new:tiny", template, texts, critic=True).joke_tokenizer


def test_a_punchline_of_three_questions_is_a_stock_phrase() -> None:
    assert stock_phrases([*STOCK, *OTHERS]) == {"it was two tired"}
    assert stock_phrases(STOCK[:2]) == set()


def test_one_question_asked_again_makes_no_stock_phrase() -> None:
    again = [Joke(question, "It swept in.") for question in ("Why?", "why", "WHY?!", "What?")]
    assert stock_phrases(again) == set()


def test_every_joke_is_read_and_stock_phrases_are_read_backwards_too(
    tokenizer: JokeTokenizer,
) -> None:
    jokes = [*STOCK, *OTHERS]
    encoded = encode_selection(tokenizer, Selection(jokes, 0, 0, []), seed=1)
    assert encoded[: len(jokes)] == [tokenizer.encode(joke) for joke in jokes]
    backwards = [tokenizer.parse(one.input_ids) for one in encoded[len(jokes) :]]
    assert backwards == (STOCK if tokenizer.template.punchline_first else [])


def test_hints_are_nothing_a_start_or_a_topic_of_the_question_and_are_not_learned() -> None:
    template = replace(TEMPLATES["original"], punchline_first=True)
    jokes = [Joke(f"Why did clown number {n} juggle?", "It was two tired.") for n in range(90)]
    tokenizer = open_base("new:tiny", template, [joke.question for joke in jokes]).joke_tokenizer
    encoded = encode_selection(tokenizer, Selection(jokes, 0, 0, []), seed=1)[len(jokes) :]
    kinds: Counter[str] = Counter()
    for joke, one in zip(jokes, encoded, strict=True):
        head = tokenizer.decode(one.input_ids).partition("<|answer|>")[0]
        hint = head.removeprefix("<|question|>").strip()
        start = tokenizer.encode_prompt(hint)
        assert one.input_ids[: len(start)] == start
        assert one.learned_from == (len(start) if hint else 1)
        if not hint:
            kinds["nothing"] += 1
        elif joke.question.startswith(f"{hint} "):
            kinds["start"] += 1
        else:
            assert hint in joke.question.lower().split("?")[0].split()
            kinds["topic"] += 1
    assert set(kinds) == {"nothing", "start", "topic"}
    assert min(kinds.values()) > 15
    assert encoded == encode_selection(tokenizer, Selection(jokes, 0, 0, []), seed=1)[90:]
    assert encoded != encode_selection(tokenizer, Selection(jokes, 0, 0, []), seed=2)[90:]


def test_verdicts_are_learned_only_if_asked_for(tokenizer: JokeTokenizer) -> None:
    unrated: list[tuple[Joke, bool]] = []
    encoded = [
        encode_selection(tokenizer, Selection(OTHERS, 0, 0, jokes), seed=1)
        for jokes in ([(FLAT, False)], unrated)
    ]
    assert encoded[0] == encoded[1]


def test_of_a_rated_joke_the_verdict_alone_is_learned(tokenizer: JokeTokenizer) -> None:
    rated = [(STOCK[0], True), (FLAT, False)]
    encoded = encode_selection(tokenizer, Selection(OTHERS, 0, 0, rated), seed=1, verdicts=True)
    assert encoded[len(OTHERS) :] == [tokenizer.encode_verdict(*one) for one in rated]
    rows = pack_jokes(encoded, 256, tokenizer.end_id)
    labels, weights = rows.tensors["labels"], rows.tensors["weights"]
    heavy = (weights > 1) & (labels != IGNORE_INDEX)
    verdicts = [tokenizer.encode_verdict(*one).input_ids[-1] for one in rated]
    assert sorted(labels[heavy].tolist()) == sorted(verdicts)
    told = int((labels != IGNORE_INDEX).sum()) - len(rated)
    assert told == sum(len(tokenizer.encode(joke)) - 1 for joke in OTHERS)
