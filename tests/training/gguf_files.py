"""Small GGUF files: a Llama and a byte-level BPE tokenizer, written with llama.cpp's package."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import dequantize, quantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

transformers: Any = importlib.import_module("transformers")  # its classes are half typed

END_OF_TEXT = "<|endoftext|>"
CONTROL = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")
SENTENCES = (
    "Why did the bicycle lie down in 1995? It was two tired to go on in 1995.",
    "What did the lantern say in 1995? I'm burnt out, and the wick isn't what it was.",
    "Why was the broom late again? It swept in at 1995 past nine.",
    "What do you call an owl that keeps its hours? A night watch.",
)
TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def make_tokenizer(*, digits_apart: bool = True, control: Sequence[str] = CONTROL) -> Tokenizer:
    """Return a byte-level BPE that learned its merges from `SENTENCES`, SmolLM's way or GPT-2's."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
        if digits_apart
        else byte_level
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(control),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend


def make_llama(entries: int, *, tied: bool = True) -> Any:
    """Return a random Llama of 2 blocks and width 64 whose heads share keys and values in pairs."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=entries,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    return transformers.LlamaForCausalLM(config).eval()


def write_gguf(
    path: Path,
    model: Any,
    tokenizer: Tokenizer,
    quantization: GGMLQuantizationType = GGMLQuantizationType.F32,
    /,
    **changes: Any,
) -> None:
    """Write a model with its tokenizer; the model's weights become what the file's stand for.

    Args:
        path: The file.
        model: The model.
        tokenizer: Its tokenizer.
        quantization: How matrices are stored.
        **changes: Fields of the tokenizer that are to differ; None leaves one out.
    """
    config: Any = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    fields = tokenizer_fields(tokenizer) | changes
    for name, value in fields.items():
        if isinstance(value, list):
            writer.add_array(f"tokenizer.ggml.{name}", value)
        elif isinstance(value, str):
            writer.add_string(f"tokenizer.ggml.{name}", value)
        elif value is not None:
            writer.add_uint32(f"tokenizer.ggml.{name}", value)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            array = weights.numpy()
            kind = quantization if array.ndim > 1 else GGMLQuantizationType.F32
            if "q_proj" in name or "k_proj" in name:
                heads = config.num_attention_heads if "q_proj" in name else 2
                # llama.cpp rotates neighbours, Transformers the halves of a head.
                paired = array.reshape(heads, 2, -1, array.shape[1])
                stored = quantize(paired.swapaxes(1, 2).reshape(array.shape), kind)
            else:
                stored = quantize(array, kind)
            weights.copy_(torch.from_numpy(dequantize(quantize(array, kind), kind)))
            writer.add_tensor(tensor_name(name), stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokenizer_fields(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what a SmolLM2 file says of its tokenizer."""
    bpe = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].__getitem__)
    kinds = [TokenType.CONTROL if token in CONTROL else TokenType.NORMAL for token in tokens]
    return {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": list(map(int, kinds)),
        "merges": [" ".join(merge) for merge in bpe["merges"]],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 2,
    }


def tensor_name(name: str) -> str:
    """Return llama.cpp's name of a Llama's parameter."""
    plain = name.removesuffix(".weight").removeprefix("model.")
    outer = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
    if plain in outer:
        return f"{outer[plain]}.weight"
    _, block, part = plain.split(".", 2)
    return f"blk.{block}.{TENSORS[part]}.weight"
