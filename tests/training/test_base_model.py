import importlib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from joker.core.errors import ConfigError, ModelFolderError
from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.core.template import TEMPLATES
from joker.core.tokenizer import WORKS
from joker.engines.weights import read_causal_lm
from joker.training.base_model import SIZES, freeze_layers, open_base, set_dropout
from joker.training.vocabulary import train_tokenizer

transformers: Any = importlib.import_module("transformers")  # its classes are half typed

JOKE = Joke("Why did it?", "It was.")
TEXTS = ["Why did the bicycle lie down? It was two tired."] * 20


def test_a_base_from_scratch_has_its_shape_and_the_layouts_tokens() -> None:
    base = open_base("new:tiny", TEMPLATES["original"], TEXTS)
    assert base.context_length == SIZES["tiny"]["n_positions"]
    encoded = base.joke_tokenizer.encode(Joke("Why did it?", "It was."))
    for marker in TEMPLATES["original"].special_tokens:
        assert encoded.input_ids.count(base.joke_tokenizer.backend.token_to_id(marker)) == 1


def test_a_folder_is_a_base_and_its_embeddings_grow_for_new_markers(
    tiny_folder: ModelFolder,
) -> None:
    base = open_base(str(tiny_folder.path), TEMPLATES["separator"], [])
    rows = len(base.model.get_input_embeddings().weight)  # type: ignore[arg-type]
    assert rows >= len(base.tokenizer)
    joke = Joke("Why did it?", "It was.")
    assert base.joke_tokenizer.parse(base.joke_tokenizer.encode(joke).input_ids) == joke


def test_embeddings_are_rounded_up_where_asked() -> None:
    base = open_base("new:tiny", TEMPLATES["original"], TEXTS, round_up_to=100)
    # The size has 1,024 entries, which is no multiple of 100.
    assert base.model.config.vocab_size == 1100


@pytest.mark.parametrize("text", ["naïve café", "日本", "🙂 \n\t tabs", "\x00"])
def test_a_trained_tokenizer_loses_no_byte(text: str) -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_dropout_is_set_everywhere() -> None:
    base = open_base("new:tiny", TEMPLATES["original"], TEXTS)
    set_dropout(base.model, 0.25)
    shares = {m.p for m in base.model.modules() if type(m).__name__ == "Dropout"}
    assert shares == {0.25}


@pytest.mark.parametrize("share", [0, 0.0, 0.1])
def test_dropout_is_set_in_a_llamas_attention(share: float) -> None:
    model: Any = make_llama(attention_dropout=share)
    set_dropout(model, 0.5)
    assert {block.self_attn.attention_dropout for block in model.model.layers} == {0.5}
    ids = torch.arange(12)[None]
    assert not torch.equal(model.train()(ids).logits, model(ids).logits)
    assert torch.equal(model.eval()(ids).logits, model(ids).logits)


def make_llama(**settings: Any) -> Any:
    torch.manual_seed(4)
    shape = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    }
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**(shape | settings)))


def make_gpt2(**settings: Any) -> Any:
    torch.manual_seed(4)
    shape = {"n_layer": 3, "n_embd": 32, "n_head": 2, "n_positions": 64}
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = transformers.GPT2Config(vocab_size=300, **(shape | still | settings))
    return transformers.GPT2LMHeadModel(config)


MODELS = {
    "GPT-2": lambda: make_gpt2(),
    "GPT-2, untied": lambda: make_gpt2(tie_word_embeddings=False),
    "Llama": lambda: make_llama(tie_word_embeddings=True),
    "Llama, untied": lambda: make_llama(tie_word_embeddings=False),
}


def is_below(name: str, count: int) -> bool:
    """Say whether a parameter belongs to the first blocks, by its name."""
    return any(f".{kind}.{n}." in name for kind in ("h", "layers") for n in range(count))


def is_embedding(name: str) -> bool:
    return any(part in name for part in ("wte", "wpe", "embed_tokens"))


def learn(model: PreTrainedModel) -> PreTrainedModel:
    """Go down the gradient once."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(300, (2, 16), generator=generator)
    model.train()(input_ids=ids, labels=ids).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return model


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_frozen_blocks_stay_and_the_others_learn_as_if_all_did(name: str, count: int) -> None:
    model = MODELS[name]()
    start = {key: value.detach().clone() for key, value in model.named_parameters()}
    free = dict(learn(deepcopy(model)).named_parameters())
    added = [298, 299]
    freeze_layers(model, count, added)
    for key, value in learn(model).named_parameters():
        if is_below(key, count):
            assert not value.requires_grad
            assert value.equal(start[key]), key
        elif not is_embedding(key):
            assert free[key].grad is not None
            torch.testing.assert_close(value.grad, free[key].grad)
            assert not value.equal(start[key]), key
    embeddings: Any = model.get_input_embeddings()
    first = next(iter(start.values()))
    assert embeddings.weight[:298].equal(first[:298])
    assert embeddings.weight[added].equal(first[added]) == ("untied" in name)


def test_freezing_nothing_changes_nothing() -> None:
    model = make_gpt2()
    freeze_layers(model, 0)
    learn(model)
    assert all(value.grad is not None for value in model.parameters())


@pytest.mark.parametrize("count", [3, 4])
def test_a_model_frozen_as_a_whole_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"is {count}, but the base has 3 blocks"):
        freeze_layers(make_llama(), count)


def test_a_base_with_a_critic_has_its_verdicts(tiny_folder: ModelFolder) -> None:
    name = str(tiny_folder.path)
    assert not open_base(name, TEMPLATES["original"], []).joke_tokenizer.has_critic
    base = open_base(name, TEMPLATES["original"], [], critic=True)
    assert base.joke_tokenizer.has_critic
    works = base.tokenizer.convert_tokens_to_ids(WORKS)
    assert base.joke_tokenizer.encode_verdict(JOKE, True).input_ids[-1] == works
    assert len(base.model.get_input_embeddings().weight) > works  # type: ignore[arg-type]


def test_a_smaller_vocabulary_keeps_what_a_base_of_ours_learnt(tiny_folder: ModelFolder) -> None:
    name, template = str(tiny_folder.path), TEMPLATES["original"]
    whole = open_base(name, template, [])
    size = len(whole.tokenizer) - 40
    small = open_base(name, template, ["Why did it? It was."], vocabulary_size=size)
    assert len(small.tokenizer) <= size
    assert small.joke_tokenizer.parse(small.joke_tokenizer.encode(JOKE).input_ids) == JOKE
    for token in ("<|endoftext|>", *template.special_tokens):
        row, learned = (
            base.model.get_input_embeddings().weight[  # type: ignore[index]
                base.tokenizer.convert_tokens_to_ids(token)
            ]
            for base in (small, whole)
        )
        assert row.equal(learned), token


def test_a_vocabulary_smaller_than_asked_stays_whole(tiny_folder: ModelFolder) -> None:
    base = open_base(str(tiny_folder.path), TEMPLATES["original"], [], vocabulary_size=10**6)
    whole = open_base(str(tiny_folder.path), TEMPLATES["original"], [])
    assert base.tokenizer.get_vocab() == whole.tokenizer.get_vocab()


def test_a_base_from_scratch_has_no_vocabulary_to_shrink() -> None:
    with pytest.raises(ConfigError, match="'vocabulary_size' needs a pretrained base"):
        open_base("new:tiny", TEMPLATES["original"], TEXTS, vocabulary_size=300)


def test_padding_and_chats_of_a_base_leave_no_ids_behind(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    model = make_llama(vocab_size=400, pad_token_id=399, eos_token_id=[398, 399])
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = open_base(str(tmp_path / "base"), TEMPLATES["original"], TEXTS, vocabulary_size=270)
    assert base.model.get_input_embeddings().padding_idx is None
    base.model.save_pretrained(tmp_path / "small")
    small: Any = read_causal_lm(str(tmp_path / "small"))
    end = base.joke_tokenizer.end_id
    assert (small.config.pad_token_id, small.config.eos_token_id) == (None, end)
    assert (small.generation_config.pad_token_id, small.generation_config.eos_token_id) == (
        None,
        end,
    )


def test_an_unknown_size_is_refused_with_those_that_are() -> None:
    with pytest.raises(ModelFolderError, match="choose tiny"):
        open_base("new:huge", TEMPLATES["original"], [])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="cannot load the base model"):
        open_base(str(tmp_path), TEMPLATES["original"], [])
