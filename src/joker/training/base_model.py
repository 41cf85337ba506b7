"""Base models: pretrained, or GPT-2 from scratch.

``distilgpt2``, any other causal LM on the hub or in a local folder, and the weights of a GGUF
file are loaded with Transformers' ``from_pretrained``; ``new:SIZE`` makes a GPT-2 with random
weights and a byte-level BPE tokenizer trained on the training jokes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import AddedToken
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from joker.core.errors import ConfigError, ModelFolderError, first_line, plural
from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke
from joker.core.model_folder import MANIFEST, ModelFolder
from joker.core.template import Template
from joker.core.tokenizer import FAILS, WORKS, JokeTokenizer
from joker.engines.weights import (
    is_gguf,
    load_causal_lm,
    load_pretrained,
    silent_transformers,
)
from joker.training.vocabulary import (
    read_gguf_tokenizer,
    shrink_vocabulary,
    train_tokenizer,
)

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 1024, "n_positions": 128},
    "small": {"n_layer": 6, "n_embd": 384, "n_head": 6, "vocab_size": 8192, "n_positions": 256},
    "distil": {"n_layer": 6, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024},
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024},
}
"""Shapes for ``new:SIZE``: 0.2M, 13.9M, DistilGPT2's 82M and GPT-2's 124M parameters."""


@dataclass(frozen=True, slots=True)
class Base:
    """A model and its tokenizer, prepared for a template.

    Attributes:
        model: The causal LM, with embeddings for the template's special tokens.
        tokenizer: Its tokenizer with these tokens, for saving.
        joke_tokenizer: The same tokenizer, for jokes in the template.
        context_length: Maximum number of tokens the model can attend to.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    joke_tokenizer: JokeTokenizer
    context_length: int


def open_base(
    name: str,
    template: Template,
    texts: Iterable[str],
    *,
    vocabulary_size: int | None = None,
    keep_layers: int | None = None,
    critic: bool = False,
    round_up_to: int = 1,
) -> Base:
    """Return the base model called ``name``, with the template's special tokens added.

    Args:
        name: ``new:SIZE``, a folder, a GGUF file, or a name on the hub.
        template: The template whose special tokens are added.
        texts: The training texts, from which a new or reduced vocabulary is derived.
        vocabulary_size: Number of entries to which a pretrained base's vocabulary is reduced, not
            counting the special tokens of the template and the critic; None keeps all.
        keep_layers: Number of blocks that are kept; None keeps all.
        critic: Add the tokens that say whether a joke works.
        round_up_to: The number of embedding rows is padded to a multiple of this. With 64, matrix
            products with GPT-2's 50,257 entries are up to 1.7 times as fast.

    Raises:
        ModelFolderError: If there is no such size, folder or model.
        ConfigError: If the vocabulary cannot have that size, or the model that many blocks.
        TokenizerError: If the tokenizer cannot encode the template.
    """
    if name.startswith("new:"):
        if vocabulary_size is not None:
            raise ConfigError("setting 'vocabulary_size' needs a pretrained base, not new:SIZE")
        tokenizer, model = _make(name.removeprefix("new:"), texts)
    else:
        tokenizer, model = _load(name)
        if vocabulary_size is not None and vocabulary_size < len(tokenizer):
            own = _added_tokens(template, critic)  # already trained if the base is one of ours
            tokenizer = shrink_vocabulary(model, tokenizer, texts, vocabulary_size, keep=own)
    if keep_layers is not None:
        model = keep_blocks(model, keep_layers)
    added = [
        AddedToken(token, special=True, normalized=False)
        for token in _added_tokens(template, critic)
    ]
    tokenizer.add_special_tokens(
        {"additional_special_tokens": added}, replace_extra_special_tokens=False
    )
    rows = max(len(tokenizer), len(cast("torch.Tensor", model.get_input_embeddings().weight)))
    # A pretrained model's new rows are drawn around the mean of the others.
    with silent_transformers():
        model.resize_token_embeddings(
            rows, pad_to_multiple_of=round_up_to, mean_resizing=not name.startswith("new:")
        )
    joke_tokenizer = JokeTokenizer(
        tokenizer.backend_tokenizer, template, str(tokenizer.eos_token), tokenizer.bos_token
    )
    _set_special_ids(model, joke_tokenizer)
    limit = getattr(model.config, "max_position_embeddings", None) or 1024
    return Base(model, tokenizer, joke_tokenizer, int(limit))


def open_teacher(name: str, base: Base, template: Template, block_size: int) -> PreTrainedModel:
    """Load a teacher for distillation.

    Args:
        name: The model folder.
        base: The student.
        template: The student's template.
        block_size: Tokens per row.

    Raises:
        ModelFolderError: If there is no such folder, or it has no weights.
        ConfigError: If its template or vocabulary differs, or its context is shorter than a row.
    """
    folder = ModelFolder.open(Path(name))
    manifest = folder.manifest
    known = JokeTokenizer.from_folder(folder.path, manifest.template).backend.get_vocab()
    wrong = None
    if manifest.template != template:
        wrong = (
            f"was trained with another template, {manifest.template.label}, or in another order; "
            f"set 'template', 'markers' and 'punchline_first' as its joker.json does"
        )
    elif known != base.joke_tokenizer.backend.get_vocab():
        wrong = (
            f"has another vocabulary, {len(known)} entries instead of {len(base.tokenizer)}; "
            "train both from bases with the same tokenizer, 'vocabulary_size' and 'critic'"
        )
    elif manifest.context_length < block_size:
        wrong = f"has a context of {manifest.context_length} tokens; lower 'block_size'"
    if wrong:
        raise ConfigError(f"setting 'teacher' is {name}, which {wrong}")
    model = load_causal_lm(folder, device="cpu")
    model.requires_grad_(False)
    return model


def earlier_trainings(base: str) -> list[dict[str, Any]]:
    """Return the training settings behind a base, oldest first; empty if not a model folder."""
    path = Path(base)
    if not (path / MANIFEST).is_file():
        return []
    manifest = ModelFolder.open(path).manifest
    return [*manifest.earlier, manifest.training]


def fingerprints_with(base: str, jokes: Sequence[Joke]) -> Fingerprints:
    """Return the fingerprints of jokes and of the jokes that a base was trained on."""
    own = Fingerprints.of(jokes)
    before = Fingerprints.load(Path(base))
    return Fingerprints.join([before, own]) if before else own


def set_dropout(model: PreTrainedModel, share: float) -> None:
    """Set a model's dropout rate, in dropout layers and in attention."""
    module: Any
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        elif isinstance(getattr(module, "attention_dropout", None), int | float):
            module.attention_dropout = share  # Llama and its relatives have no dropout layer


def keep_blocks(model: PreTrainedModel, count: int) -> PreTrainedModel:
    """Return a model with fewer blocks, taken evenly spaced from the first to the last.

    DistilGPT2 starts from GPT-2's blocks 0, 2, 4, 7, 9 and 11 in the same way.

    Raises:
        ConfigError: If the model has fewer blocks, or cannot be built with that number.
    """
    name, blocks = _blocks(model)
    last = len(blocks) - 1
    if count > len(blocks):
        raise ConfigError(
            f"setting 'keep_layers' is {count}, but the base has {len(blocks)} "
            f"{plural(len(blocks), 'block')}"
        )
    kept = [round(place * last / (count - 1)) for place in range(count)]
    settings = model.config.to_dict()
    settings |= {
        key: [value[block] for block in kept]
        for key, value in settings.items()
        if "layer" in key and isinstance(value, list) and len(value) == len(blocks)
    }
    settings[model.config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = count
    weights = {
        key: value for key, value in model.state_dict().items() if not key.startswith(f"{name}.")
    }
    for place, block in enumerate(kept):
        for key, value in blocks[block].state_dict().items():
            weights[f"{name}.{place}.{key}"] = value
    try:
        smaller = type(model)(type(model.config).from_dict(settings))
        smaller.load_state_dict(weights)
    except (ValueError, RuntimeError, StrictDataclassError) as error:
        raise ConfigError(
            f"setting 'keep_layers' cannot be used with a {type(model).__name__}: "
            f"{first_line(error)}"
        ) from error
    return smaller


def freeze_layers(model: PreTrainedModel, count: int, added_ids: Sequence[int] = ()) -> None:
    """Freeze the embeddings and the first blocks of a model.

    The blocks' input is detached from the graph, so a training step skips their backward pass. Of
    the embeddings, only the rows of added tokens are trained, also where the output layer is tied
    to them: the frozen blocks expect the other rows unchanged.

    Args:
        model: The model to train.
        count: Number of blocks; with 0 the whole model is trained.
        added_ids: Token ids that were added to the base's vocabulary.

    Raises:
        ConfigError: If the model has no more blocks than that.
    """
    _, blocks = _blocks(model)
    if count >= len(blocks):
        raise ConfigError(
            f"setting 'freeze_layers' is {count}, but the base has {len(blocks)} "
            f"{plural(len(blocks), 'block')}"
        )
    if count:
        for block in blocks[:count]:
            block.requires_grad_(False)
        blocks[0].register_forward_pre_hook(_detach_input)
        embeddings = cast("torch.nn.Embedding", model.get_input_embeddings())
        learns = torch.zeros(len(embeddings.weight), 1, device=embeddings.weight.device)
        learns[list(added_ids)] = 1
        weight: Any = embeddings.weight  # register_hook is untyped
        weight.register_hook(learns.mul)


def _blocks(model: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """Return the name and the blocks of the model's longest module list."""
    lists = (
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList)
    )
    return max(lists, key=lambda named: len(named[1]))


def _detach_input(_block: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    return (inputs[0].detach(), *inputs[1:])


def _added_tokens(template: Template, critic: bool) -> tuple[str, ...]:
    return (*template.special_tokens, *((WORKS, FAILS) if critic else ()))


def _set_special_ids(model: PreTrainedModel, tokenizer: JokeTokenizer) -> None:
    """Set the tokens that begin and end a text, and remove the model's other special tokens.

    A pretrained base may have a padding token, whose embedding is not trained, and tokens that end
    a chat turn. In a reduced vocabulary their ids belong to other tokens or to none.
    """
    model.config.bos_token_id = tokenizer.start_id
    model.config.eos_token_id = tokenizer.end_id
    model.config.pad_token_id = None
    cast("torch.nn.Embedding", model.get_input_embeddings()).padding_idx = None
    model.generation_config = GenerationConfig.from_model_config(model.config)


def _make(size: str, texts: Iterable[str]) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    if size not in SIZES:
        raise ModelFolderError(f"unknown size {size!r}: choose {', '.join(SIZES)}")
    shape = SIZES[size]
    tokenizer = train_tokenizer(texts, shape["vocab_size"])
    return tokenizer, GPT2LMHeadModel(GPT2Config(**shape))  # type: ignore[no-untyped-call]


def _load(name: str) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    if is_gguf(name):
        return read_gguf_tokenizer(Path(name)), load_pretrained(name)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name, use_fast=True)
    except (OSError, ValueError, ImportError) as error:
        raise ModelFolderError(
            f"cannot load the base model {name!r}: {first_line(error)} "
            "Name a folder, a GGUF file, a causal LM on the Hub, or new:SIZE to start from scratch."
        ) from error
    model = load_pretrained(name)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelFolderError(f"the base model {name!r} has no fast tokenizer; choose another")
    if tokenizer.eos_token is None:
        raise ModelFolderError(f"the tokenizer of {name!r} has no end-of-text token")
    return tokenizer, model
