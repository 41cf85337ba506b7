"""A table of models' size, bits per byte and tokens per second.

    python -m benchmarks.frontier FOLDER... --data PREPARED [--jokes 250] [--rounds 5]

Each folder needs an OpenVINO graph (`joker export`, with `--int4-ratio` for 4-bit weights). All are
measured on the same held-out jokes, sampled as by `joker evaluate`, in the engine's default mode,
and take turns within each round; rates are medians after a warm-up round.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import openvino

from joker.core.joke import Sampling
from joker.core.model_folder import ModelFolder
from joker.engines import Engine, GenerationTask, open_engine
from joker.evaluation.held_out import HeldOut
from joker.evaluation.likelihood_metrics import likelihood_metrics

_CONCURRENCIES = (1, 64)
_MIN_TASKS = 8
_MIN_SHARE = 0.05
"""Minimum share of a number format to be listed; scales and zero points have less."""


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--jokes", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folders = [ModelFolder.open(path) for path in options.folders]
    engines = [open_engine(folder, "openvino") for folder in folders]
    held_out = HeldOut.open(options.data).sample(options.jokes, seed=1)
    titles = ["folder", "vocabulary", "blocks", "weights", "MiB", "bits per byte (95% interval)"]
    rows = [
        [*describe(folder), bits_per_byte(engine, folder, held_out)]
        for engine, folder in zip(engines, folders, strict=True)
    ]
    for concurrency in _CONCURRENCIES:
        titles += [f"tokens/s, {concurrency} at once (range)", "CPU ms a token"]
        speeds = compare_speed(engines, concurrency, options.rounds)
        rows = list(map(list.__add__, rows, speeds))
    for cells in (titles, ["---"] * len(titles), *rows):
        print(f"| {' | '.join(cells)} |")


def describe(folder: ModelFolder) -> list[str]:
    """Return a model's name, vocabulary size, number of blocks, weight formats and size."""
    config = json.loads((folder.openvino / "config.json").read_text(encoding="utf-8"))
    blocks = config.get("num_hidden_layers") or config["n_layer"]
    numbers: Counter[str] = Counter()
    for node in openvino.Core().read_model(folder.openvino / "openvino_model.xml").get_ops():
        if node.get_type_name() == "Constant":
            bits = node.get_element_type().bitwidth
            numbers[f"{bits} bits"] += math.prod(node.get_output_shape(0))
    shares = ((name, count / numbers.total()) for name, count in numbers.most_common())
    weights = ", ".join(f"{share:.0%} {name}" for name, share in shares if share > _MIN_SHARE)
    size = sum(file.stat().st_size for file in folder.openvino.glob("openvino_model.*"))
    name, vocabulary = folder.path.name, config["vocab_size"]
    return [name, f"{vocabulary:,}", f"{blocks}", weights, f"{size / 2**20:.1f}"]


def bits_per_byte(engine: Engine, folder: ModelFolder, held_out: HeldOut) -> str:
    """Return bits per byte of held-out jokes with their confidence interval."""
    estimate = likelihood_metrics(
        engine,
        folder.manifest.context_length,
        held_out.jokes,
        held_out.clusters,
        seed=1,
        retrieval_limit=0,
    ).bits_per_byte
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def compare_speed(engines: Sequence[Engine], concurrency: int, rounds: int) -> list[list[str]]:
    """Return each engine's median tokens per second with range, and its CPU time per token."""
    rates: list[list[float]] = [[] for _ in engines]
    costs: list[list[float]] = [[] for _ in engines]
    for number in range(rounds + 1):
        for engine, speeds, spent in zip(engines, rates, costs, strict=True):
            start, cpu_start = time.perf_counter(), time.process_time()
            tokens = draw(engine, concurrency, number)
            speeds.append(tokens / (time.perf_counter() - start))
            spent.append(1000 * (time.process_time() - cpu_start) / tokens)
    return [  # without the first round, which warms up
        [
            f"{statistics.median(speeds):.0f} ({min(speeds):.0f} to {max(speeds):.0f})",
            f"{statistics.median(spent):.2f}",
        ]
        for (_, *speeds), (_, *spent) in zip(rates, costs, strict=True)
    ]


def draw(engine: Engine, concurrency: int, number: int) -> int:
    """Generate a round of tasks, some at a time; return the number of tokens."""
    prompt_ids = engine.tokenizer.encode_prompt()
    seeds = [1000 * number + i for i in range(max(_MIN_TASKS, concurrency))]
    tasks = [GenerationTask(prompt_ids, Sampling(), seed) for seed in seeds]
    tokens = 0
    for first in range(0, len(tasks), concurrency):
        done = engine.generate(tasks[first : first + concurrency])
        tokens += sum(len(completion.token_ids) - len(prompt_ids) for completion in done)
    return tokens


if __name__ == "__main__":
    main()
