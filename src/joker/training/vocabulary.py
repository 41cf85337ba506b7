"""The vocabulary of a base model: trained on jokes, read from a GGUF file, or shrunk.

Transformers' conversion of a GGUF file's tokenizer is not used: for a byte-level BPE in a file of
Llama's architecture it builds a SentencePiece tokenizer, which puts tokens between words that the
model has never seen. The tokenizer is built from the file's vocabulary and merges instead.

Tokens can be removed from a byte-level BPE as long as the parts of the remaining ones are kept:
text that used a removed token is then encoded with shorter ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from joker.core.errors import ConfigError, ModelFolderError, import_optional
from joker.core.tokenizer import plain_text_copy

_CONTROL, _USER_DEFINED = 3, 4
"""Types of added tokens, special ones and those that are ordinary text; `TokenType` in llama.cpp's
gguf package."""
END_OF_TEXT = "<|endoftext|>"
_GGUF_PREFIX = "tokenizer.ggml."
_GPT2_PATTERN = "gpt-2"
_SPLIT_DIGITS = ("smollm", "starcoder", "refact", "command-r")
"""Pre-tokenizers like GPT-2's that also split numbers into digits."""


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer like GPT-2's.

    Args:
        texts: Training texts.
        vocabulary_size: Maximum number of tokens, including the 256 bytes and the end-of-text
            token.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _fast_tokenizer(backend, END_OF_TEXT, END_OF_TEXT)


def read_gguf_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Build the byte-level BPE tokenizer that a GGUF file describes.

    Texts begin and end with ``<|endoftext|>`` where the file has it, as in pretraining; a chat
    model's own start and end tokens belong to conversations.

    Raises:
        ModelFolderError: If the file is damaged or its tokenizer is not a byte-level BPE.
        MissingDependencyError: If the package ``gguf`` is not installed.
    """
    fields = _read_gguf_fields(path)
    model, pattern = fields.get("model"), fields.get("pre", _GPT2_PATTERN)
    if model != "gpt2" or pattern not in (_GPT2_PATTERN, "default", *_SPLIT_DIGITS):
        raise ModelFolderError(
            f"the tokenizer in {path} is {model!r} with pre-tokenizer {pattern!r}, not a "
            f"supported byte-level BPE ({', '.join((_GPT2_PATTERN, *_SPLIT_DIGITS))}); "
            "name the model's folder or hub name instead"
        )
    tokens: list[str] = fields.get("tokens", [])
    merges = [tuple(merge.split(" ")) for merge in fields.get("merges", [])]
    try:
        backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    except Exception as error:  # the Rust side raises plain Exception
        raise ModelFolderError(f"cannot read the tokenizer in {path}: {error}") from error
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
        if pattern in _SPLIT_DIGITS
        else byte_level
    )
    backend.decoder = decoders.ByteLevel()
    types: list[int] = fields.get("token_type", [])
    backend.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, kind in zip(tokens, types, strict=False)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    return _fast_tokenizer(backend, *_start_and_end(tokens, fields, path))


def shrink_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str],
    size: int,
    keep: Iterable[str] = (),
) -> PreTrainedTokenizerFast:
    """Keep the tokens of a byte-level BPE vocabulary that texts use most.

    Args:
        model: Its embeddings are shrunk in place.
        tokenizer: The model's tokenizer.
        texts: Texts like those that the model will be trained on.
        size: Number of tokens to keep. Bytes and the start and end tokens are always kept;
            other special tokens are removed.
        keep: Further special tokens to keep if the tokenizer has them.

    Returns:
        The smaller tokenizer.

    Raises:
        ConfigError: If the tokenizer is not a byte-level BPE, or ``size`` is less than what is
            always kept.
    """
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    bpe = state["model"]
    if bpe["type"] != "BPE" or "ByteLevel" not in json.dumps(state["pre_tokenizer"]):
        raise ConfigError("setting 'vocabulary_size' needs a base with a byte-level BPE tokenizer")
    added = state["added_tokens"]
    ids: dict[str, int] = bpe["vocab"] | {token["content"]: token["id"] for token in added}
    merges: list[list[str]] = bpe["merges"]
    parts: dict[str, set[str]] = {}
    for left, right in merges:  # a token can be the result of several
        parts.setdefault(left + right, set()).update((left, right))
    always = {tokenizer.bos_token, tokenizer.eos_token, *keep, *pre_tokenizers.ByteLevel.alphabet()}
    kept = always & ids.keys()
    if size < len(kept):
        raise ConfigError(f"setting 'vocabulary_size' must be {len(kept)} or more for this base")

    by_frequency = _tokens_by_frequency(tokenizer.backend_tokenizer, texts)
    for token in [*by_frequency, *parts]:  # then unused ones, the earliest merges first
        needed = _with_parts(token, parts) - kept
        if token in ids and len(kept) + len(needed) <= size:
            kept |= needed

    order = sorted(kept, key=ids.__getitem__)
    new_ids = {token: index for index, token in enumerate(order)}
    bpe["vocab"] = new_ids
    bpe["merges"] = [pair for pair in merges if {"".join(pair), *pair} <= kept]
    state["added_tokens"] = [
        token | {"id": new_ids[token["content"]]} for token in added if token["content"] in kept
    ]
    if bpe["unk_token"] not in kept:
        bpe["unk_token"] = None
    state |= {"post_processor": None, "truncation": None, "padding": None}
    _keep_embeddings(model, [ids[token] for token in order])
    return _fast_tokenizer(
        Tokenizer.from_str(json.dumps(state)), tokenizer.bos_token, tokenizer.eos_token
    )


def _fast_tokenizer(
    backend: Tokenizer, start: str | None, end: str | None
) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token=start,
        eos_token=end,
        clean_up_tokenization_spaces=False,
    )


def _read_gguf_fields(path: Path) -> dict[str, Any]:
    """Return the tokenizer's fields of a GGUF file."""
    gguf = import_optional("gguf", "reading a GGUF file needs")
    if not path.is_file():
        raise ModelFolderError(f"there is no GGUF file at {path}")
    try:
        return {
            name.removeprefix(_GGUF_PREFIX): field.contents()
            for name, field in gguf.GGUFReader(path).fields.items()
            if name.startswith(_GGUF_PREFIX)
        }
    except Exception as error:  # a damaged file can raise anything
        raise ModelFolderError(f"cannot read the GGUF file {path}: {error}") from error


def _start_and_end(tokens: list[str], fields: dict[str, Any], path: Path) -> tuple[str, str]:
    if END_OF_TEXT in tokens:
        return END_OF_TEXT, END_OF_TEXT
    end = fields.get("eos_token_id", len(tokens))
    start = fields.get("bos_token_id", end)
    if max(start, end) >= len(tokens):
        raise ModelFolderError(f"the tokenizer in {path} has no end-of-text token")
    return tokens[start], tokens[end]


def _tokens_by_frequency(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """Return the tokens of texts, the most frequent first."""
    counts: Counter[int] = Counter()
    for encoding in plain_text_copy(tokenizer).encode_batch(list(texts), add_special_tokens=False):
        counts.update(encoding.ids)
    return [tokenizer.id_to_token(token_id) for token_id, _ in counts.most_common()]


def _with_parts(token: str, parts: dict[str, set[str]]) -> set[str]:
    """Return a token and all tokens that it is merged from."""
    found: set[str] = set()
    pending = {token}
    while pending:
        part = pending.pop()
        found.add(part)
        pending |= parts.get(part, set()) - found
    return found


def _keep_embeddings(model: PreTrainedModel, token_ids: list[int]) -> None:
    """Keep only the embeddings of these tokens, in this order."""
    embeddings: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    kept = torch.tensor(token_ids)
    with torch.no_grad():
        for tensor in {embeddings.weight, head.weight, getattr(head, "bias", None)} - {None}:
            tensor[: len(kept)] = tensor[kept]  # resizing keeps the first rows
    model.resize_token_embeddings(len(kept), mean_resizing=False)
