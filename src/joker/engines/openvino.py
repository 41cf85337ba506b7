"""The OpenVINO engine: int8 weights and continuous batching on a CPU, without PyTorch.

Facts of the library that shape this module: one thread must make all calls of a
pipeline; a request whose handle is dropped stops; a pipeline does not know the
model's position limit, so lengths are clamped before; ``rng_seed`` is per request
since 2026.2. The pipeline gets token ids, so it needs no tokenizer of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
from openvino import Tensor
from openvino_genai import (
    ContinuousBatchingPipeline,
    GenerationConfig,
    GenerationStatus,
    SchedulerConfig,
)

from joker.core.errors import ModelFolderError, ResourceError
from joker.core.model_folder import ModelFolder
from joker.core.sampling import Sampling
from joker.core.tokenizer import EncodedJoke
from joker.engines.base import Completion, Request, encode_request, is_greedy, load_tokenizer

# Beyond these a larger batch gains little on a CPU and costs memory.
_TOKENS_PER_STEP = 256
_REQUESTS_AT_ONCE = 32

# The pipeline keeps the keys and values of all that it was handed at once: with the bundled model
# 754 MB in all for 800 requests, and 279 MB when they come 64 at a time.
_REQUESTS_HELD = 64

# In the library's default mode activations are quantized and summed in 16 bits, in ways that depend
# on the size of the batch: one joke in five came out differently alone and in company. ACCURACY
# keeps activations and the KV cache in 32-bit floats, and so a seed's joke the same.
_PROPERTIES = {"EXECUTION_MODE_HINT": "ACCURACY"}


class OpenVinoEngine:
    """Continues prompts and scores answers with a model folder's OpenVINO graph.

    Raises:
        ModelFolderError: If the folder has no graph or a damaged one.
        TokenizerError: If the graph's tokenizer cannot be read.
    """

    def __init__(self, folder: ModelFolder) -> None:
        if not folder.has_openvino:
            raise ModelFolderError(
                f"{folder.path} has no OpenVINO graph; add one with 'joker export {folder.path}'"
            )
        self.tokenizer = load_tokenizer(folder, folder.openvino)
        self._context_length = folder.manifest.context_length
        self._request_numbers = count()
        scheduler = SchedulerConfig()
        scheduler.max_num_batched_tokens = _TOKENS_PER_STEP
        scheduler.max_num_seqs = _REQUESTS_AT_ONCE
        try:
            self._pipeline = ContinuousBatchingPipeline(
                folder.openvino, scheduler, "CPU", _PROPERTIES
            )
        except RuntimeError as error:
            raise ModelFolderError(
                f"cannot load the OpenVINO graph in {folder.openvino}; "
                f"make it again with 'joker export {folder.path}'"
            ) from error

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Continue every request in continuous batches; see `Engine.generate`."""
        encoded = [encode_request(r, self.tokenizer, self._context_length) for r in requests]
        outputs = self._run(
            [
                (prompt_ids, self._sampling_config(request.sampling, request.seed, max_new_tokens))
                for request, (prompt_ids, max_new_tokens) in zip(requests, encoded, strict=True)
            ]
        )
        completions = []
        for (prompt_ids, _), output in zip(encoded, outputs, strict=True):
            ids = [*prompt_ids, *output.generated_ids]
            completions.append(Completion(ids, finished=ids[-1] == self.tokenizer.end_id))
        return completions

    def score(self, jokes: Sequence[EncodedJoke]) -> list[float]:
        """Return how likely every answer is, in continuous batches; see `Engine.score`."""
        scores = [-math.inf] * len(jokes)
        kept = [i for i, joke in enumerate(jokes) if len(joke) <= self._context_length]
        outputs = self._run([(jokes[i].input_ids, _scoring_config()) for i in kept])
        for index, output in zip(kept, outputs, strict=True):
            # With echo the prompt's own log-probabilities come back, one for each of its tokens.
            scores[index] = math.fsum(output.generated_log_probs[jokes[index].answer_start :])
        return scores

    def _run(self, prompts: Sequence[tuple[list[int], GenerationConfig]]) -> list[Any]:
        """Put prompts through the pipeline, so many at a time; return their outputs in order."""
        parts = (prompts[i : i + _REQUESTS_HELD] for i in range(0, len(prompts), _REQUESTS_HELD))
        return [output for part in parts for output in self._run_together(part)]

    def _run_together(self, prompts: Sequence[tuple[list[int], GenerationConfig]]) -> list[Any]:
        """Put prompts through the pipeline in one continuous batch."""
        handles = [
            self._pipeline.add_request(
                next(self._request_numbers), Tensor(np.array([ids], dtype=np.int64)), config
            )
            for ids, config in prompts
        ]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        if any(handle.get_status() == GenerationStatus.IGNORED for handle in handles):
            raise ResourceError("out of memory for the KV cache; ask for fewer jokes at once")
        return [output for handle in handles for output in handle.read_all()]

    def _sampling_config(
        self, sampling: Sampling, seed: int, max_new_tokens: int
    ) -> GenerationConfig:
        config = GenerationConfig()
        config.set_eos_token_id(self.tokenizer.end_id)
        config.max_new_tokens = max_new_tokens
        config.rng_seed = seed
        config.do_sample = not is_greedy(sampling)
        if config.do_sample:
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            if 0 < sampling.top_k < self.tokenizer.vocabulary_size:
                config.top_k = sampling.top_k
        return config


def _scoring_config() -> GenerationConfig:
    """Return the configuration that generates nothing and reports on the prompt."""
    config = GenerationConfig()
    config.echo = True
    config.logprobs = 1
    config.max_new_tokens = 0
    return config
