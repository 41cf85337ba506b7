"""The OpenVINO batch: int8 weights and continuous batching on a CPU, without PyTorch.

What to know of the library: all calls of a pipeline must come from one thread; a request stops
when its handle is dropped; reading from an empty handle blocks forever; a pipeline does not know
the model's context length, so lengths are clamped before; ``rng_seed`` is per request since 2026.2.
The pipeline gets token ids, so it needs no tokenizer of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
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

from joker.core.errors import ModelFolderError
from joker.core.model_folder import ModelFolder
from joker.engines.protocol import is_greedy, load_tokenizer
from joker.engines.tasks import BATCH_TOKENS, EngineTask, GenerationTask, Key, Output

TOKENS_PER_STEP = 256

# In the library's default mode some CPUs quantize activations and sum in 16 bits, in ways that
# depend on the size of the batch: one joke in three differs between a batch of one and a larger
# one. ACCURACY keeps activations and the KV cache in 32-bit floats, so a seed gives the same joke.
REPRODUCIBLE = {"EXECUTION_MODE_HINT": "ACCURACY"}

# With a number of threads, the library pins them to the first cores, and so would every other
# process on the machine: two containers with a quota of one CPU would share a core.
UNPINNED = {"ENABLE_CPU_PINNING": False}


@dataclass(slots=True)
class _Running:
    """A task in the pipeline and its handle."""

    task: EngineTask
    handle: Any

    def read(self, status: GenerationStatus) -> Output:
        """Return the new output."""
        if status == GenerationStatus.IGNORED:
            reason = "out of memory for the KV cache; ask for fewer jokes at once"
            return Output(done=True, error=reason)
        token_ids: list[int] = []
        log_probabilities: list[float] = []
        # The output of each step is a separate part, even where a long prompt is echoed.
        while self.handle.can_read():
            for part in self.handle.read().values():
                token_ids += part.generated_ids
                log_probabilities += part.generated_log_probs
        done = status != GenerationStatus.RUNNING
        if isinstance(self.task, GenerationTask):
            return Output(token_ids, done)
        # With echo, there is one log-probability for each token of the prompt.
        return Output(done=done, log_probabilities=log_probabilities[self.task.joke.answer_start :])


class OpenVinoBatch:
    """Advances tasks with a model folder's OpenVINO graph; a `joker.engines.tasks.Batch`.

    Args:
        folder: The model.
        num_threads: CPU threads; by default OpenVINO uses all cores, whatever the CPU quota.
        reproducible: Give the same tokens for the same seed whatever else is in the batch, more
            slowly than in the library's default mode.

    Raises:
        ModelFolderError: If the folder has no graph or a damaged one.
        TokenizerError: If the graph's tokenizer cannot be read.
    """

    # The pipeline advances all requests that it has and grows its KV cache for them, whatever
    # max_num_seqs says; so the scheduler must limit what is added.
    capacity = BATCH_TOKENS

    def __init__(
        self, folder: ModelFolder, num_threads: int | None = None, *, reproducible: bool = False
    ) -> None:
        if not folder.has_openvino:
            raise ModelFolderError(
                f"{folder.path} has no OpenVINO graph; add one with 'joker export {folder.path}'"
            )
        tokenizer = load_tokenizer(folder, folder.openvino)
        self._end_id = tokenizer.end_id
        self._vocabulary_size = tokenizer.vocabulary_size
        self._request_ids = count()
        self._running: dict[Key, _Running] = {}
        scheduler = SchedulerConfig()
        scheduler.max_num_batched_tokens = TOKENS_PER_STEP
        threads = {"INFERENCE_NUM_THREADS": num_threads} if num_threads else {}
        try:
            self._pipeline = ContinuousBatchingPipeline(
                folder.openvino,
                scheduler,
                "CPU",
                UNPINNED | (REPRODUCIBLE if reproducible else {}) | threads,
            )
        except RuntimeError as error:
            raise ModelFolderError(
                f"cannot load the OpenVINO graph in {folder.openvino}; "
                f"make it again with 'joker export {folder.path}'"
            ) from error

    def add(self, key: Key, task: EngineTask) -> None:
        if isinstance(task, GenerationTask):
            ids, config = task.prompt_ids, self._sampling_config(task)
        else:
            ids, config = task.joke.input_ids, _scoring_config()
        tensor = Tensor(np.array([ids], dtype=np.int64))
        handle = self._pipeline.add_request(next(self._request_ids), tensor, config)
        self._running[key] = _Running(task, handle)

    def remove(self, key: Key) -> None:
        self._running.pop(key).handle.cancel()
        if not self._running:
            # A step frees what cancelled requests hold; without one the library reports a leak when
            # the pipeline is released.
            self._pipeline.step()

    def step(self) -> dict[Key, Output]:
        self._pipeline.step()
        outputs = {}
        for key, running in list(self._running.items()):
            status = running.handle.get_status()
            if status != GenerationStatus.RUNNING:
                del self._running[key]
            elif not running.task.streamed:
                continue
            outputs[key] = running.read(status)
        return outputs

    def _sampling_config(self, task: GenerationTask) -> GenerationConfig:
        config = GenerationConfig()
        config.set_eos_token_id(self._end_id)
        config.max_new_tokens = task.sampling.max_new_tokens
        config.rng_seed = task.seed
        config.do_sample = not is_greedy(task.sampling)
        if config.do_sample:
            config.temperature = task.sampling.temperature
            config.top_p = task.sampling.top_p
            if 0 < task.sampling.top_k < self._vocabulary_size:
                config.top_k = task.sampling.top_k
        return config


def _scoring_config() -> GenerationConfig:
    """Return the configuration that only scores the prompt."""
    config = GenerationConfig()
    config.echo = True
    config.logprobs = 1
    config.max_new_tokens = 0
    return config
