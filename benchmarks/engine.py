"""Tokens per second of the OpenVINO engine in both of its modes, compared to the bare pipeline.

    python benchmarks/engine.py [--model FOLDER] [--clients 1 8 64] [--rounds 3]
                                [--trials] [--jokes FILE.csv]

All have the same weights and seeds and take turns within each round; medians are printed. CPU time
is this process's; it depends little on other load. The engine runs in its own process and is called
by one thread per client, as by a server; the bare pipeline runs as many requests at once.
``--trials`` runs the bare pipeline with other properties and with candidates of one prompt instead;
``--jokes`` compares the likelihood of a hundred jokes in both modes.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import Tensor
from openvino_genai import ContinuousBatchingPipeline, GenerationConfig, SchedulerConfig

from joker.core.joke import Joke, Sampling
from joker.core.model_folder import ModelFolder, bundled_model
from joker.core.tokenizer import EncodedJoke
from joker.engines import Engine, GenerationTask, open_engine
from joker.engines.openvino import REPRODUCIBLE, TOKENS_PER_STEP
from joker.engines.protocol import load_tokenizer

Run = Callable[[list[GenerationTask], int], int]
"""Generates tasks for a number of clients; returns the number of tokens."""

PROMPT = "Why do cats"
CANDIDATES = 16


class BarePipeline:
    """OpenVINO's pipeline without our engine.

    Args:
        folder: The model.
        properties: OpenVINO's properties.
        prefix_caching: Cache the keys and values of prompts.
        together: Send the candidates of one prompt as one request.
    """

    def __init__(
        self,
        folder: ModelFolder,
        properties: dict[str, Any],
        *,
        prefix_caching: bool = False,
        together: bool = False,
    ) -> None:
        self._end_id = load_tokenizer(folder, folder.openvino).end_id
        scheduler = SchedulerConfig()
        scheduler.max_num_batched_tokens = TOKENS_PER_STEP
        scheduler.enable_prefix_caching = prefix_caching
        self._together = together
        self._numbers = itertools.count()
        self._pipeline = ContinuousBatchingPipeline(folder.openvino, scheduler, "CPU", properties)

    def run(self, tasks: list[GenerationTask], clients: int) -> int:
        """Generate the tasks, `clients` requests at a time; return the number of tokens."""
        size = CANDIDATES if self._together else 1
        waiting = list(reversed(tasks[::size]))
        running: list[Any] = []
        tokens = 0
        while waiting or running:
            while waiting and len(running) * size < clients:
                running.append(self._add(waiting.pop(), size))
            self._pipeline.step()
            finished = [handle for handle in running if handle.get_status().name != "RUNNING"]
            for handle in finished:
                running.remove(handle)
                tokens += sum(len(output.generated_ids) for output in handle.read_all())
        return tokens

    def _add(self, task: GenerationTask, size: int) -> Any:
        config = GenerationConfig()
        config.set_eos_token_id(self._end_id)
        config.do_sample = True
        config.rng_seed = task.seed
        config.num_return_sequences = size
        config.temperature = task.sampling.temperature
        config.top_k = task.sampling.top_k
        config.top_p = task.sampling.top_p
        config.max_new_tokens = task.sampling.max_new_tokens
        prompt = Tensor(np.array([task.prompt_ids], np.int64))
        return self._pipeline.add_request(next(self._numbers), prompt, config)


def run_engine(engine: Engine) -> Run:
    """Return a `Run` that calls an engine from one thread per client."""

    def run_task(task: GenerationTask) -> int:
        (completion,) = engine.generate([task])
        return len(completion.token_ids) - len(task.prompt_ids)

    def run(tasks: list[GenerationTask], clients: int) -> int:
        with ThreadPoolExecutor(clients) as pool:
            return sum(pool.map(run_task, tasks))

    return run


def compare(
    contestants: dict[str, Run], prompt_ids: list[int], clients: Iterable[int], rounds: int
) -> None:
    """Run the contestants in turn, and print their medians and ranges."""
    for concurrency in clients:
        speeds: dict[str, list[float]] = {name: [] for name in contestants}
        costs: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(rounds + 1):
            seeds = [1000 * number + i for i in range(max(4, concurrency))]
            tasks = [GenerationTask(prompt_ids, Sampling(), seed) for seed in seeds]
            for name, run in contestants.items():
                start, cpu_start = time.perf_counter(), time.process_time()
                tokens = run(tasks, concurrency)
                if number:  # the first round warms up
                    speeds[name].append(tokens / (time.perf_counter() - start))
                    costs[name].append(1000 * (time.process_time() - cpu_start) / tokens)
        best = max(map(statistics.median, speeds.values()))
        for name, rounds_speeds in speeds.items():
            median = statistics.median(rounds_speeds)
            print(
                f"{concurrency:3} at once  {name:30} {median:7.1f} tokens/s  {median / best:.2f}"
                f"  ({min(rounds_speeds):.1f} to {max(rounds_speeds):.1f})"
                f"  {statistics.median(costs[name]):6.2f} CPU ms a token",
                flush=True,
            )


def trials(folder: ModelFolder) -> dict[str, Run]:
    """Return the bare pipeline with one property changed at a time."""
    properties: dict[str, dict[str, Any]] = {
        "default": {},
        "reproducible": REPRODUCIBLE,
        "KV cache f16": {"KV_CACHE_PRECISION": "f16"},
        "KV cache u8": {"KV_CACHE_PRECISION": "u8"},
        "no dynamic quantization": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0},
        "1 thread": {"INFERENCE_NUM_THREADS": 1},
        "2 threads": {"INFERENCE_NUM_THREADS": 2},
        "latency hint": {"PERFORMANCE_HINT": "LATENCY"},
        "throughput hint": {"PERFORMANCE_HINT": "THROUGHPUT"},
    }
    return {name: BarePipeline(folder, changed).run for name, changed in properties.items()}


def joke_bits(engine: Engine, jokes: Sequence[Joke]) -> NDArray[np.float64]:
    """Return the bits of each joke, including markers and end token."""
    encoded = [EncodedJoke(engine.tokenizer.encode(joke).input_ids, 1) for joke in jokes]
    return -np.array(list(map(math.fsum, engine.score(encoded)))) / math.log(2)


def compare_likelihood(folder: ModelFolder, jokes: list[Joke]) -> None:
    """Print bits per byte in both modes, and the differences per joke."""
    size = np.array([len((joke.question + joke.answer).encode()) for joke in jokes])
    bits_per_byte = {}
    for reproducible in (True, False):
        engine = open_engine(folder, reproducible=reproducible)
        bits = joke_bits(engine, jokes)
        bits_per_byte[reproducible] = bits / size
        name = "reproducible" if reproducible else "default"
        print(f"{name:14} {bits.sum() / size.sum():.4f} bits per byte of {len(jokes)} jokes")
    difference = np.abs(bits_per_byte[True] - bits_per_byte[False])
    print(
        f"difference per joke: {difference.mean():.4f} on average, {difference.max():.4f} at most"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", action="store_true")
    parser.add_argument("--jokes", type=Path)
    options = parser.parse_args()
    folder = ModelFolder.open(options.model)
    tokenizer = load_tokenizer(folder, folder.openvino)
    if options.jokes:
        with options.jokes.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        chosen = rows[:: len(rows) // 100][:100]
        compare_likelihood(folder, [Joke(row["question"], row["answer"]) for row in chosen])
    if options.trials:
        compare(trials(folder), tokenizer.encode_prompt(), options.clients, options.rounds)
        candidates: dict[str, Run] = {
            "16 requests of one prompt": BarePipeline(folder, {}).run,
            "the same, prefix caching": BarePipeline(folder, {}, prefix_caching=True).run,
            "one request, 16 sequences": BarePipeline(folder, {}, together=True).run,
        }
        prompt_ids = tokenizer.encode_prompt(PROMPT)
        compare(candidates, prompt_ids, [CANDIDATES, 4 * CANDIDATES], options.rounds)
        return
    engines = [
        open_engine(folder, "openvino", reproducible=reproducible, shared=True)
        for reproducible in (True, False)
    ]
    contestants: dict[str, Run] = {
        "bare pipeline, reproducible": BarePipeline(folder, REPRODUCIBLE).run,
        "engine, reproducible": run_engine(engines[0]),
        "bare pipeline, default": BarePipeline(folder, {}).run,
        "engine, default": run_engine(engines[1]),
    }
    compare(contestants, tokenizer.encode_prompt(), options.clients, options.rounds)
    for engine in engines:
        engine.close()


if __name__ == "__main__":
    main()
