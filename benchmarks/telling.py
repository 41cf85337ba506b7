"""Time and memory of one joke from the command line, from Enter to the end of the process.

    python benchmarks/telling.py --runs 10 --candidates 1 4 8

Each joke is told by a process of its own, the numbers of candidates alternating. Prints a
JSON object with the median and longest seconds and the largest resident memory in MB. Run
it in the environment that `make run` sets up, where a person would.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path


def tell(candidates: int, model: Path | None, seed: int) -> tuple[float, float]:
    """Tell one joke; return seconds and the largest resident memory in MB."""
    command = [sys.executable, "-m", "joker", "tell", "--candidates", str(candidates)]
    command += ["--seed", str(seed), *(["--model", str(model)] if model else [])]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    start = time.perf_counter()
    process = os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, 1), (os.POSIX_SPAWN_DUP2, nowhere, 2)],
    )
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - start
    os.close(nowhere)
    if status:
        sys.exit(f"joker tell ended with {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss / 1000


def main() -> None:
    """Run the benchmark and print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="jokes for each number of candidates")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--model", type=Path, help="model folder; by default the bundled one")
    arguments = parser.parse_args()
    first = tell(arguments.candidates[0], arguments.model, seed=0)
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in arguments.candidates}
    for seed in range(arguments.runs):
        for count, runs in found.items():
            runs.append(tell(count, arguments.model, seed))
    report = {
        "first_run_seconds": round(first[0], 2),
        "by_candidates": {
            count: {
                "median_seconds": round(statistics.median(seconds for seconds, _ in runs), 2),
                "longest_seconds": round(max(seconds for seconds, _ in runs), 2),
                "largest_memory_mb": round(max(memory for _, memory in runs)),
            }
            for count, runs in found.items()
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
