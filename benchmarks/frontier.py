"""Size, bits per byte and tokens a second of a model rounded in several ways.

    python -m benchmarks.frontier FOLDER --data PREPARED [--jokes 250] [--ratios 0 0.5 1]
                                  [--calibration data/riddles.csv]

FOLDER has PyTorch weights. Each ratio of 4-bit weights becomes a graph in a temporary copy; the
held-out jokes are those that `joker evaluate` draws.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.engine import joke_bits, run_engine
from joker.core.errors import ModelFolderError
from joker.core.model_folder import ModelFolder
from joker.core.sampling import Sampling
from joker.engines import GenerationTask, open_engine
from joker.evaluation.held_out import HeldOut
from joker.training.export import export_openvino
from joker.training.filtering import read_jokes

_AT_ONCE = 64
_ROUNDS = 3


def main() -> None:
    """Measure and print one line for each ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--jokes", type=int, default=250)
    parser.add_argument("--ratios", type=float, nargs="*", default=[0.0, 0.5, 1.0])
    parser.add_argument("--calibration", type=Path)
    options = parser.parse_args()
    jokes = HeldOut.open(options.data).sample(options.jokes, seed=1).jokes
    bytes_of_jokes = sum(joke.byte_count for joke in jokes)
    calibration = (
        [joke for joke, _ in read_jokes(options.calibration)] if options.calibration else ()
    )
    for ratio in options.ratios:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "model"
            shutil.copytree(options.folder, path, ignore=shutil.ignore_patterns("checkpoints"))
            folder = ModelFolder.open(path)
            try:
                check = export_openvino(folder, int4_ratio=ratio, calibration=calibration)
            except ModelFolderError as error:
                print(f"{ratio:4.0%} in 4 bits  refused: {error}", flush=True)
                continue
            size = sum(file.stat().st_size for file in folder.openvino.iterdir())
            bits = joke_bits(open_engine(folder, "openvino"), jokes).sum()
            print(
                f"{ratio:4.0%} in 4 bits  {size / 2**20:6.1f} MiB  "
                f"{bits / bytes_of_jokes:.4f} bits per byte  {check.mean_kl:.4f} nats mean KL  "
                f"{tokens_per_second(folder):6.1f} tokens/s at {_AT_ONCE} at once",
                flush=True,
            )


def tokens_per_second(folder: ModelFolder) -> float:
    """Return the median rate of three rounds of requests, after one that warms up."""
    engine = open_engine(folder, "openvino", shared=True)
    run = run_engine(engine)
    prompt_ids = engine.tokenizer.encode_prompt()
    rates = []
    for number in range(_ROUNDS + 1):
        tasks = [
            GenerationTask(prompt_ids, Sampling(), _AT_ONCE * number + i) for i in range(_AT_ONCE)
        ]
        start = time.perf_counter()
        rates.append(run(tasks, _AT_ONCE) / (time.perf_counter() - start))
    engine.close()
    return statistics.median(rates[1:])


if __name__ == "__main__":
    main()
