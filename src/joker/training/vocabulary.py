"""Shrinking a vocabulary to what jokes use: a smaller model that reads jokes the same way.

A byte-level BPE stays valid when tokens are taken out whose parts are kept: a text that used a
removed token is spelled with shorter ones. So the tokens that the training texts use most are
kept, with every token they are merged from, and the embeddings' other rows go.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from joker.core.errors import ConfigError


def shrink_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str],
    size: int,
    keep: Iterable[str] = (),
) -> PreTrainedTokenizerFast:
    """Keep the entries of a byte-level BPE vocabulary that texts use most.

    Args:
        model: Loses the other rows of its embeddings, in place.
        tokenizer: The model's.
        texts: What the model is going to read.
        size: Entries to keep. Bytes and the start and end tokens always are; other special
            tokens go.
        keep: Special tokens to keep, too, where the tokenizer has them.

    Returns:
        The smaller tokenizer.

    Raises:
        ConfigError: If the tokenizer is no byte-level BPE, or ``size`` holds not even the bytes.
    """
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    bpe = state["model"]
    if bpe["type"] != "BPE" or "ByteLevel" not in json.dumps(state["pre_tokenizer"]):
        raise ConfigError("setting 'vocabulary_size' needs a base with a byte-level BPE tokenizer")
    added = state["added_tokens"]
    ids: dict[str, int] = bpe["vocab"] | {one["content"]: one["id"] for one in added}
    merges: list[list[str]] = bpe["merges"]
    parts: dict[str, set[str]] = {}
    for left, right in merges:  # a token can be the result of several
        parts.setdefault(left + right, set()).update((left, right))
    always = {tokenizer.bos_token, tokenizer.eos_token, *keep, *pre_tokenizers.ByteLevel.alphabet()}
    kept = always & ids.keys()
    if size < len(kept):
        raise ConfigError(f"setting 'vocabulary_size' must be {len(kept)} or more for this base")

    reader = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    reader.encode_special_tokens = True  # as jokes are read: no text is a special token
    reader.no_truncation()
    reader.no_padding()
    usage: Counter[int] = Counter()
    for encoding in reader.encode_batch(list(texts), add_special_tokens=False):
        usage.update(encoding.ids)
    by_id = {number: token for token, number in ids.items()}
    by_rank = [by_id[number] for number, _ in usage.most_common()]
    for token in [*by_rank, *parts]:  # then the rest, the earliest merges first
        needed = _with_parts(token, parts) - kept
        if token in ids and len(kept) + len(needed) <= size:
            kept |= needed

    order = sorted(kept, key=ids.__getitem__)
    places = {token: place for place, token in enumerate(order)}
    bpe["vocab"] = places
    bpe["merges"] = [pair for pair in merges if {"".join(pair), *pair} <= kept]
    state["added_tokens"] = [
        one | {"id": places[one["content"]]} for one in added if one["content"] in kept
    ]
    if bpe["unk_token"] not in kept:
        bpe["unk_token"] = None
    state |= {"post_processor": None, "truncation": None, "padding": None}
    _keep_rows(model, [ids[token] for token in order])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        clean_up_tokenization_spaces=False,
    )


def _with_parts(token: str, parts: dict[str, set[str]]) -> set[str]:
    """Return a token and all that it is merged from."""
    found: set[str] = set()
    pending = {token}
    while pending:
        found.add(one := pending.pop())
        pending |= parts.get(one, set()) - found
    return found


def _keep_rows(model: PreTrainedModel, rows: list[int]) -> None:
    """Keep the embeddings' rows of some entries, in this order."""
    embeddings: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    kept = torch.tensor(rows)
    with torch.no_grad():
        for tensor in {embeddings.weight, head.weight, getattr(head, "bias", None)} - {None}:
            tensor[: len(rows)] = tensor[kept]  # resizing keeps the first rows
    model.resize_token_embeddings(len(rows), mean_resizing=False)
