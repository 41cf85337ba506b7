from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from joker.core.errors import ConfigError
from joker.training.base_model import END_OF_TEXT, train_tokenizer
from joker.training.vocabulary import shrink_vocabulary

transformers: Any = importlib.import_module("transformers")  # its classes are half typed

RARE = "The harbourmaster quietly polished seventeen peculiar barometers."
JOKES = [
    "Why did the bicycle lie down? It was two tired.",
    "Why was the broom late again? It swept in.",
    "What do you call a punctual owl? A night watch.",
]
WORDS = sorted({word for text in [*JOKES, RARE] for word in text.split()})
FULL = train_tokenizer([*JOKES * 3, RARE, RARE], 700)


def make_model(kind: str = "tied", entries: int = len(FULL)) -> Any:
    """Return a small random model with this many entries."""
    torch.manual_seed(2)
    if kind == "tied":
        shape = {"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 64}
        config = transformers.GPT2Config(vocab_size=entries, **shape)
        return transformers.GPT2LMHeadModel(config).eval()
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=entries,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=False,
        )
    ).eval()


def vocabulary(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return dict(tokenizer.backend_tokenizer.get_vocab())


SMALL = shrink_vocabulary(make_model(), FULL, JOKES, 340)
KEPT = vocabulary(SMALL)


def test_what_the_texts_use_is_kept_and_the_size_is_held() -> None:
    used = {token for text in JOKES for token in FULL.tokenize(text)}
    assert used <= KEPT.keys()
    assert len(SMALL) <= 340
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= KEPT.keys()
    assert sorted(KEPT.values()) == list(range(len(KEPT)))
    assert "Ġbarometers" in vocabulary(FULL)
    assert "Ġbarometers" not in KEPT


@given(words=st.lists(st.sampled_from(WORDS), max_size=12), space=st.sampled_from([" ", "  ", ""]))
def test_a_text_whose_tokens_are_all_kept_has_the_same_ones(words: list[str], space: str) -> None:
    text = space.join(words)
    before = FULL.tokenize(text)
    if KEPT.keys() >= set(before):
        assert SMALL.tokenize(text) == before


@given(text=st.text(max_size=60) | st.sampled_from([RARE, END_OF_TEXT, "🙂 naïve 日本\n\t"]))
def test_any_text_survives_the_round_trip(text: str) -> None:
    backend = SMALL.backend_tokenizer
    ids = backend.encode(text, add_special_tokens=False).ids
    assert backend.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_the_kept_entries_have_the_logits_they_had(kind: str) -> None:
    model = make_model(kind)
    texts = [JOKES[0]] * 9
    before = torch.tensor([FULL.encode(JOKES[0], add_special_tokens=False)])
    with torch.no_grad():
        old = model(before).logits
    small = shrink_vocabulary(model, FULL, texts, 300)
    after = torch.tensor([small.encode(JOKES[0], add_special_tokens=False)])
    assert after.shape == before.shape
    assert not after.equal(before)
    with torch.no_grad():
        new = model(after).logits
    kept = sorted(vocabulary(small), key=vocabulary(small).__getitem__)
    torch.testing.assert_close(new, old[..., [vocabulary(FULL)[token] for token in kept]])
    embeddings: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    assert (head.weight is embeddings.weight) == (kind == "tied")
    assert model.config.vocab_size == len(embeddings.weight) == len(head.weight) == len(small)


def test_start_and_end_are_kept_and_other_special_tokens_only_if_asked() -> None:
    full = train_tokenizer(JOKES, 300)
    full.add_special_tokens({"additional_special_tokens": ["<|joke|>", "<|chat|>"]})
    model = make_model(entries=len(full))
    rows: torch.Tensor = model.get_input_embeddings().weight.detach().clone()
    # A joke that spells a special token is text.
    small = shrink_vocabulary(model, full, ["<|chat|>"] * 5, 280, keep=["<|joke|>", "<|new|>"])
    assert (small.bos_token, small.eos_token) == (END_OF_TEXT, END_OF_TEXT)
    assert (
        "<|joke|>"
        in small.backend_tokenizer.get_added_tokens_decoder()[
            small.convert_tokens_to_ids("<|joke|>")
        ].content
    )
    assert not {"<|chat|>", "<|new|>"} & vocabulary(small).keys()
    learnt = model.get_input_embeddings().weight[small.convert_tokens_to_ids("<|joke|>")]
    assert learnt.equal(rows[full.convert_tokens_to_ids("<|joke|>")])


def test_a_tokenizer_without_a_start_token_stays_one() -> None:
    full = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=train_tokenizer(JOKES, 300).backend_tokenizer, eos_token=END_OF_TEXT
    )
    small = shrink_vocabulary(make_model(entries=len(full)), full, JOKES, 280)
    assert (small.bos_token, small.eos_token) == (None, END_OF_TEXT)


def test_truncation_hides_no_text_and_is_left_behind() -> None:
    state = json.loads(train_tokenizer([RARE] * 5, 400).backend_tokenizer.to_str())
    backend = Tokenizer.from_str(json.dumps(state))
    backend.enable_truncation(1)
    backend.enable_padding(length=8, pad_token=END_OF_TEXT)
    full = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END_OF_TEXT)  # type: ignore[no-untyped-call]
    small = shrink_vocabulary(make_model(entries=len(full)), full, [RARE], 330)
    plain = small.backend_tokenizer.encode(RARE)
    assert small.backend_tokenizer.decode(plain.ids) == RARE


@pytest.mark.parametrize("size", [0, 10, 256])
def test_a_size_without_room_for_the_bytes_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="257 or more"):
        shrink_vocabulary(make_model(), FULL, JOKES, size)


@pytest.mark.parametrize("byte_level", [True, False])
def test_another_kind_of_tokenizer_is_refused(byte_level: bool) -> None:
    words = {word: number for number, word in enumerate(["<unk>", *WORDS])}
    backend = Tokenizer(models.WordLevel(words, "<unk>") if byte_level else models.BPE(words, []))
    backend.pre_tokenizer = (
        pre_tokenizers.ByteLevel() if byte_level else pre_tokenizers.WhitespaceSplit()
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<unk>")  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigError, match="byte-level BPE"):
        shrink_vocabulary(make_model(), tokenizer, JOKES, 300)
