"""llama.cpp's server from the package xllamacpp, in a process of its own, on a folder's weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gguf import GGUFWriter, TokenType
from transformers import PreTrainedModel

from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import JokeTokenizer
from joker.engines.weights import load_causal_lm

_BLOCK = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_OUTER = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
_SERVER = """
import sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.api_keys = [sys.argv[2]]
params.port = 0
params.n_parallel = 8
params.n_ctx = 8 * 256
params.cpuparams.n_threads = 1
params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def llama_cpp_server(folder: ModelFolder, scratch: Path, api_key: str) -> Iterator[str]:
    """Serve a GPT-2 folder's weights until the context ends; give the base URL of the API."""
    path = scratch / "model.gguf"
    write_gguf(folder, path)
    with (scratch / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(path), api_key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        with process:
            assert process.stdout
            try:
                # The server's own notices may come before it.
                address = next(line for line in process.stdout if line.startswith("http"))
                yield f"{address.strip()}/v1"
            finally:
                process.kill()


def write_gguf(folder: ModelFolder, path: Path) -> None:
    """Write a GPT-2 folder's weights, in 32-bit floats, and its tokenizer as a GGUF file."""
    model: PreTrainedModel = load_causal_lm(folder, "cpu")
    tokenizer = JokeTokenizer.from_folder(folder.path, folder.manifest.template)
    config = model.config
    writer = GGUFWriter(path, "gpt2")
    writer.add_name("tiny")
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    bpe = json.loads(tokenizer.backend.to_str())["model"]
    tokens = [tokenizer.backend.id_to_token(i) for i in range(tokenizer.vocabulary_size)]
    control = {tokenizer.start_id, tokenizer.end_id, *tokenizer.added_ids}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [TokenType.CONTROL if i in control else TokenType.NORMAL for i in range(len(tokens))]
    )
    writer.add_token_merges([" ".join(merge) for merge in bpe["merges"]])
    writer.add_bos_token_id(tokenizer.start_id)
    writer.add_eos_token_id(tokenizer.end_id)
    for name, weights in model.named_parameters():
        array = weights.detach().numpy()
        place, kind = name.removeprefix("transformer.").rsplit(".", 1)
        if place.startswith("h."):
            _, block, part = place.split(".", 2)
            # Transformers' GPT-2 multiplies from the other side.
            array = array.T.copy() if array.ndim > 1 else array
            target = f"blk.{block}.{_BLOCK[part]}.{kind}"
        else:
            target = f"{_OUTER[place]}.{kind}"
        writer.add_tensor(target, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
