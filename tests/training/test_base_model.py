import importlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
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
from joker.engines.weights import load_pretrained
from joker.training.base_model import (
    SIZES,
    freeze_layers,
    keep_blocks,
    open_base,
    open_teacher,
    set_dropout,
)
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


SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}


def make_llama(**settings: Any) -> Any:
    torch.manual_seed(4)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**(SHAPE | settings)))


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


def make_qwen() -> Any:
    torch.manual_seed(4)
    windows = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}
    shape = SHAPE | {"num_hidden_layers": 6, "num_key_value_heads": 2}
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**shape, **windows))


DEEP: dict[str, tuple[Callable[[], Any], int, tuple[int, ...]]] = {
    "GPT-2": (lambda: make_gpt2(n_layer=12), 6, (0, 2, 4, 7, 9, 11)),
    "Llama": (lambda: make_llama(num_hidden_layers=5), 3, (0, 2, 4)),
    "Llama, tied": (lambda: make_llama(num_hidden_layers=5, tie_word_embeddings=True), 2, (0, 4)),
    "Qwen, sliding windows in half of the blocks": (make_qwen, 3, (0, 2, 5)),
}


@pytest.mark.parametrize("name", DEEP)
def test_a_model_without_some_blocks_is_the_others_in_a_row(name: str, tmp_path: Path) -> None:
    make, count, kept = DEEP[name]
    model = make().eval()
    kept_blocks: Any = keep_blocks(model, count)
    smaller = kept_blocks.eval()
    blocks, wanted = (
        next(list(m) for m in each.modules() if isinstance(m, torch.nn.ModuleList))
        for each in (smaller, model)
    )
    assert len(blocks) == smaller.config.num_hidden_layers == count
    for block, source in zip(blocks, kept, strict=True):
        pairs = zip(block.state_dict().values(), wanted[source].state_dict().values(), strict=True)
        assert all(left.equal(right) for left, right in pairs)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = run_blocks(model, ids, kept)
        assert smaller(ids, use_cache=False).logits.equal(expected)
        cached = smaller(ids[:, :7], use_cache=True).past_key_values
        rest = smaller(ids[:, 7:], past_key_values=cached).logits
        torch.testing.assert_close(rest, expected[:, 7:])
        smaller.save_pretrained(tmp_path)
        read: Any = load_pretrained(str(tmp_path))
        assert read.eval()(ids, use_cache=False).logits.equal(expected)


def run_blocks(model: Any, ids: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
    """Return the logits of a model whose other blocks pass on what they get."""
    whole = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    hooks = [
        block.register_forward_hook(lambda _block, inputs, _output: inputs[0])
        for place, block in enumerate(whole)
        if place not in kept
    ]
    logits: torch.Tensor = model(ids, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return logits


def test_a_base_loses_blocks_where_asked(tiny_folder: ModelFolder) -> None:
    whole = open_base(str(tiny_folder.path), TEMPLATES["original"], [])
    count = whole.model.config.num_hidden_layers
    kept = open_base(str(tiny_folder.path), TEMPLATES["original"], [], keep_layers=count)
    assert kept.model.config.num_hidden_layers == count
    with pytest.raises(ConfigError, match=f"is {count + 1}, but the base has {count} blocks"):
        open_base(str(tiny_folder.path), TEMPLATES["original"], [], keep_layers=count + 1)


def test_a_model_that_cannot_be_built_with_fewer_blocks_is_refused() -> None:
    every_second_block_has_experts = transformers.Qwen2MoeConfig(
        **SHAPE | {"num_hidden_layers": 5, "num_key_value_heads": 2},
        decoder_sparse_step=2,
        num_experts=2,
        num_experts_per_tok=1,
    )
    model = transformers.Qwen2MoeForCausalLM(every_second_block_has_experts)
    with pytest.raises(
        ConfigError, match="'keep_layers' cannot be used with a Qwen2MoeForCausalLM"
    ):
        keep_blocks(model, 3)


def test_a_teacher_of_the_same_template_and_vocabulary_is_opened(tiny_folder: ModelFolder) -> None:
    base = open_base(str(tiny_folder.path), TEMPLATES["original"], [])
    name, template = str(tiny_folder.path), TEMPLATES["original"]
    teacher = open_teacher(name, base, template, tiny_folder.manifest.context_length)
    assert not teacher.training
    assert not any(weight.requires_grad for weight in teacher.parameters())


def test_a_teacher_with_another_vocabulary_is_refused(tiny_folder: ModelFolder) -> None:
    base = open_base("new:tiny", TEMPLATES["original"], TEXTS)
    with pytest.raises(ConfigError, match=r"'teacher' is .*, which has another vocabulary"):
        open_teacher(str(tiny_folder.path), base, TEMPLATES["original"], 64)


def test_a_teacher_with_another_template_is_refused(tiny_folder: ModelFolder) -> None:
    template = replace(TEMPLATES["original"], punchline_first=True)
    base = open_base(str(tiny_folder.path), template, [])
    with pytest.raises(ConfigError, match="which was trained with another template"):
        open_teacher(str(tiny_folder.path), base, template, 64)


def test_a_teacher_too_short_for_a_row_is_refused(tiny_folder: ModelFolder) -> None:
    base = open_base(str(tiny_folder.path), TEMPLATES["original"], [])
    with pytest.raises(ConfigError, match=r"has a context of .* tokens; lower 'block_size'"):
        open_teacher(str(tiny_folder.path), base, TEMPLATES["original"], 10**4)


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
    small: Any = load_pretrained(str(tmp_path / "small"))
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
