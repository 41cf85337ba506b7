"""Tokens a second of the engine under many callers, beside the bare OpenVINO pipeline.

    python benchmarks/engine.py [--model FOLDER] [--requests 64] [--rounds 9]

Both have the same weights, settings and seeds, and take turns within each round; medians and
their ratio are printed. The engine runs in its own process; it is asked by a thread for each
request, as by clients of a server, and for all at once, as the bare pipeline is.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from openvino import Tensor
from openvino_genai import ContinuousBatchingPipeline, GenerationConfig, SchedulerConfig

from joker.core.model_folder import ModelFolder, bundled_model
from joker.core.sampling import Sampling
from joker.engines import Completion, Request, open_shared_engine
from joker.engines.openvino import PROPERTIES, TOKENS_PER_STEP
from joker.engines.protocol import load_tokenizer


class BarePipeline:
    """OpenVINO's pipeline and nothing around it: all requests are handed over, then it steps."""

    def __init__(self, folder: ModelFolder, properties: dict[str, str]) -> None:
        self._tokenizer = load_tokenizer(folder, folder.openvino)
        scheduler = SchedulerConfig()
        scheduler.max_num_batched_tokens = TOKENS_PER_STEP
        self._pipeline = ContinuousBatchingPipeline(folder.openvino, scheduler, "CPU", properties)

    def run(self, requests: list[Request]) -> int:
        """Return how many tokens were drawn."""
        handles = []
        for number, request in enumerate(requests):
            config = GenerationConfig()
            config.set_eos_token_id(self._tokenizer.end_id)
            config.do_sample = True
            config.rng_seed = request.seed
            config.temperature = request.sampling.temperature
            config.top_k = request.sampling.top_k
            config.top_p = request.sampling.top_p
            config.max_new_tokens = request.sampling.max_new_tokens
            prompt = Tensor(np.array([self._tokenizer.encode_prompt(request.prompt)], np.int64))
            handles.append(self._pipeline.add_request(number, prompt, config))
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        return sum(len(output.generated_ids) for h in handles for output in h.read_all())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    folder = ModelFolder.open(options.model)
    engine = open_shared_engine(folder, "openvino")
    prompt_length = len(engine.tokenizer.encode_prompt(""))

    def count(completions: list[Completion]) -> list[int]:
        return [len(completion.token_ids) - prompt_length for completion in completions]

    def one(request: Request) -> int:
        return sum(count(engine.generate([request])))

    with ThreadPoolExecutor(options.requests) as clients:
        contestants = {
            "bare pipeline": BarePipeline(folder, PROPERTIES).run,
            "engine, a thread a request": lambda requests: sum(clients.map(one, requests)),
            "engine, one call": lambda requests: sum(count(engine.generate(requests))),
            "bare pipeline, default mode": BarePipeline(folder, {}).run,
        }
        speeds: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(options.rounds + 1):
            requests = [Request("", Sampling(), 1000 * number + i) for i in range(options.requests)]
            for name, run in contestants.items():
                start = time.perf_counter()
                tokens = run(requests)
                if number:  # the first round warms up
                    speeds[name].append(tokens / (time.perf_counter() - start))
    engine.close()
    bare = statistics.median(speeds["bare pipeline"])
    for name, found in speeds.items():
        median = statistics.median(found)
        print(f"{name:28} {median:7.0f} tokens/s  {median / bare:.2f}")


if __name__ == "__main__":
    main()
