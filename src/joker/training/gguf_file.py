"""GGUF files as base models: llama.cpp's format, weights and tokenizer in one file.

Transformers dequantizes the weights. Its conversion of the tokenizer is not used: for a byte-level
BPE in a Llama-shaped file it builds SentencePiece's, which puts tokens between words that the model
never saw. The file's own vocabulary and merges make the right one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from joker.core.errors import MissingPartError, ModelFolderError

_CONTROL, _USER_DEFINED = 3, 4
"""Types of tokens that are matched whole, standing for no text and for themselves;
`TokenType` in llama.cpp's gguf package."""
_END_OF_TEXT = "<|endoftext|>"
_GPT2_PATTERN = "gpt-2"
_DIGITS_APART = ("smollm", "starcoder", "refact", "command-r")
"""Pre-tokenizers that split numbers into digits and are GPT-2's otherwise."""


def read_gguf_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Build the byte-level BPE tokenizer that a GGUF file describes.

    Texts begin and end with ``<|endoftext|>`` where the file has it, as in pretraining; a chat
    model's own start and end tokens belong to conversations.

    Raises:
        ModelFolderError: If the file is damaged or its tokenizer is no byte-level BPE.
        MissingPartError: If the package ``gguf`` is not installed.
    """
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise MissingPartError(
            "reading a GGUF file needs gguf: pip install 'gpt2-the-joker[train]'"
        ) from error
    if not path.is_file():
        raise ModelFolderError(f"there is no GGUF file at {path}")
    try:
        fields = GGUFReader(path).fields
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise ModelFolderError(f"cannot read the GGUF file {path}: {error}") from error

    def read(name: str, default: Any = None) -> Any:
        field = fields.get(f"tokenizer.ggml.{name}")
        return default if field is None else field.contents()

    pattern = read("pre", _GPT2_PATTERN)
    if read("model") != "gpt2" or pattern not in (_GPT2_PATTERN, "default", *_DIGITS_APART):
        raise ModelFolderError(
            f"the tokenizer in {path} is {read('model')!r} with pre-tokenizer {pattern!r}, not a "
            f"byte-level BPE known here ({', '.join((_GPT2_PATTERN, *_DIGITS_APART))}); "
            "name the model's folder or hub name instead"
        )
    tokens: list[str] = read("tokens", [])
    merges = [tuple(merge.split(" ")) for merge in read("merges", [])]
    try:
        backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    except Exception as error:  # the Rust side raises plain Exception
        raise ModelFolderError(f"cannot read the tokenizer in {path}: {error}") from error
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
        if pattern in _DIGITS_APART
        else byte_level
    )
    backend.decoder = decoders.ByteLevel()
    types: list[int] = read("token_type", [])
    backend.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, kind in zip(tokens, types, strict=False)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    if _END_OF_TEXT in tokens:
        start = end = _END_OF_TEXT
    else:
        ids = read("bos_token_id", read("eos_token_id")), read("eos_token_id")
        if not all(number is not None and number < len(tokens) for number in ids):
            raise ModelFolderError(f"the tokenizer in {path} names no end-of-text token")
        start, end = (tokens[number] for number in ids)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token=start,
        eos_token=end,
        clean_up_tokenization_spaces=False,
    )
