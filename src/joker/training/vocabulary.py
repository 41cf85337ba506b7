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
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], size: int
) -> PreTrainedTokenizerFast:
    """Keep the entries of a byte-level BPE vocabulary that texts use most.

    Args:
        model: Loses the other rows of its embeddings, in place.
        tokenizer: The model's.
        texts: What the model is going to read.
        size: Entries to keep. Bytes and the start and end tokens always are; other special
            tokens go.

    Returns:
        The smaller tokenizer.

    Raises:
        ConfigError: If the tokenizer is no byte-level BPE, or ``size`` holds not even the bytes.
    """
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    bpe = state["model"]
    if bpe["type"] != "BPE" or "ByteLevel" not in json.dumps(state["pre_tokenizer"]):
        raise ConfigError("setting 'vocabulary_size' needs a base with a byte-level BPE tokenizer")
    added_ids = {one["content"]: one["id"] for one in state["added_tokens"]}
    ids: dict[str, int] = bpe["vocab"] | added_ids
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" "))
              for merge in bpe["merges"]]  # fmt: skip
    parts: dict[str, tuple[str, str]] = {}
    for left, right in merges:
        parts.setdefault(left + right, (left, right))
    specials = {str(token) for token in (tokenizer.bos_token, tokenizer.eos_token)}
    kept = specials | {byte for byte in pre_tokenizers.ByteLevel.alphabet() if byte in ids}
    if size < len(kept):
        raise ConfigError(f"setting 'vocabulary_size' must be {len(kept)} or more for this base")

    usage: Counter[int] = Counter()
    for encoding in tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False):
        usage.update(encoding.ids)
    by_id = {number: token for token, number in ids.items()}
    by_rank = [by_id[number] for number, _ in usage.most_common()]
    for token in [*by_rank, *parts]:  # then the rest, the earliest merges first
        needed = _with_parts(token, parts) - kept
        if token in ids and len(kept) + len(needed) <= size:
            kept |= needed

    order = sorted(kept, key=ids.__getitem__)
    added = [one for one in state["added_tokens"] if one["content"] in kept]
    places = {token: place for place, token in enumerate(order)}
    bpe["vocab"] = places
    bpe["merges"] = [
        list(pair) for pair in merges if "".join(pair) in kept and set(pair) <= kept
    ]  # fmt: skip
    state["added_tokens"] = [one | {"id": places[one["content"]]} for one in added]
    state["post_processor"] = None
    _keep_rows(model, [ids[token] for token in order])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        clean_up_tokenization_spaces=False,
    )


def _with_parts(token: str, parts: dict[str, tuple[str, str]]) -> set[str]:
    """Return a token and all that it is merged from."""
    found, open_ = set(), [token]
    while open_:
        found.add(one := open_.pop())
        open_ += parts.get(one, ())
    return found


def _keep_rows(model: PreTrainedModel, rows: list[int]) -> None:
    """Keep the embeddings' rows of some entries, in this order."""
    embeddings: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    tied = head is not None and head.weight is embeddings.weight
    chosen = [layer.weight.detach()[torch.tensor(rows)].clone() for layer in (embeddings, head)]
    model.resize_token_embeddings(len(rows), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(chosen[0])  # type: ignore[operator]
        if not tied:
            model.get_output_embeddings().weight.copy_(chosen[1])  # type: ignore[no-untyped-call]
