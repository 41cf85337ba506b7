"""Training speed of the original's recipe and of ours with DistilGPT2's shape, alternating.

    python benchmarks/training.py --data PREPARED --tokens 40000 --rounds 2

Both start from the same random weights and see the same number of tokens, each in a process of its
own. Prints tokens per second after the first step, bits per byte on held-out jokes, and the share
of the machine's measured bfloat16 matrix rate that a step reaches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional

RECIPES = {"original": 1024, "joker": 4096}
"""Tokens per optimizer step of each recipe, including padding."""

PARAMETERS = 81_900_000
"""DistilGPT2's; a forward and backward pass costs 6 operations per parameter and token
(Kaplan et al. 2020, https://arxiv.org/abs/2001.08361)."""


def matrix_rate(dtype: torch.dtype, seconds: float = 2.0) -> float:
    """Return the operations per second of a matrix product of a typical shape."""
    left, right = torch.randn(1024, 768, dtype=dtype), torch.randn(3072, 768, dtype=dtype)
    functional.linear(left, right)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        functional.linear(left, right)
        count += 1
    return count * 2 * 1024 * 768 * 3072 / (time.perf_counter() - start)


def train(recipe: str, data: Path, tokens: int, extra: list[str]) -> dict[str, float]:
    """Train in a separate process and return the model folder's metrics."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        command = [
            sys.executable,
            "-m",
            "joker",
            "train",
            "--data",
            str(data.resolve()),
            "--out",
            str(out),
        ]
        command += ["--recipe", recipe, "--base", "new:distil", "--test-limit", "100"]
        command += ["--max-steps", str(max(2, round(tokens / RECIPES[recipe]))), *extra]
        if recipe == "joker":
            command += ["--compile", "always"]
        start = time.perf_counter()
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        metrics: dict[str, float] = json.loads((out / "joker.json").read_text())["metrics"]
        return {**metrics, "wall_seconds": time.perf_counter() - start}


def main() -> None:
    """Run the benchmark and print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="prepared folder")
    parser.add_argument("--tokens", type=int, default=40_000, help="tokens per training run")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each recipe")
    arguments, extra = parser.parse_known_args()
    runs: dict[str, list[dict[str, float]]] = {recipe: [] for recipe in RECIPES}
    rates = [matrix_rate(torch.bfloat16)]
    for _ in range(arguments.rounds):
        for recipe, done in runs.items():
            done.append(train(recipe, arguments.data, arguments.tokens, extra))
            rates.append(matrix_rate(torch.bfloat16))
            print(recipe, done[-1], file=sys.stderr)
    rate = statistics.median(rates)
    speed = {
        recipe: statistics.median(run["tokens_per_second"] for run in done)
        for recipe, done in runs.items()
    }
    pairs = zip(runs["joker"], runs["original"], strict=True)
    report = {
        "tokens": arguments.tokens,
        "tokens_per_second": speed,
        "ratio": statistics.median(
            ours["tokens_per_second"] / theirs["tokens_per_second"] for ours, theirs in pairs
        ),
        "bits_per_byte": {recipe: done[-1]["bits_per_byte"] for recipe, done in runs.items()},
        "bfloat16_matrix_gflops": rate / 1e9,
        "share_of_matrix_rate": {
            recipe: 6 * PARAMETERS * value / rate for recipe, value in speed.items()
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
