"""How close the engine comes to the machine's peak rate of matrix multiplication.

    python -m benchmarks.limit [--model FOLDER] [--clients 64] [--rounds 3] [--seconds 20]

A token costs two operations per weight of the model's matrices. The peak rate is the best measured
with matrices of the same shapes, a row for each client, on all cores and without anything else: in
8 bits, with 8-bit weights and 32-bit activations (as on CPUs without 8-bit instructions), and in 32
bits. The bare pipeline and ``joker serve`` are printed as shares of the tokens per second that
these rates allow, by wall-clock time and by CPU time, which is less sensitive to other load. They
take turns in each round; medians are printed.

Prompt tokens cost as much but are not counted, so the shares are slightly too low.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from openvino import CompiledModel, Core, Model, Node, opset15

from benchmarks.load import Times
from benchmarks.original import bare, ours
from joker.core.model_folder import ModelFolder, bundled_model

Shape = tuple[int, int]
"""Outputs and inputs of a matrix."""

Seconds = tuple[float, float]
"""By the clock, and CPU time divided by the number of cores."""

KINDS = ("8 bits", "8-bit weights", "32 bits")
SECONDS_PER_SHAPE = 0.5
MIN_REPEATS = 5
CORES = len(os.sched_getaffinity(0))


def matrices_of(folder: ModelFolder) -> Counter[Shape]:
    """Return the shapes of all weight matrices that a token is multiplied by."""
    model = Core().read_model(folder.openvino / "openvino_model.xml")
    shapes: Counter[Shape] = Counter()
    for node in model.get_ops():
        weights = node.input(1).get_partial_shape() if node.get_type_name() == "MatMul" else None
        if weights is not None and weights.is_static and len(weights) == 2:
            rows, columns = weights.to_shape()
            shapes[rows, columns] += 1
    return shapes


def quantized(values: Node, low: float, high: float) -> Node:
    """Return values rounded to 8 bits."""
    return opset15.fake_quantize(values, low, high, low, high, 256)


def compile_product(shape: Shape, rows: int, kind: str) -> CompiledModel:
    """Compile the product of `rows` rows and a random matrix."""
    values = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    inputs = opset15.parameter([rows, shape[1]], np.float32)
    activations: Node = inputs
    if kind == "32 bits":
        weights: Node = opset15.constant(values.astype(np.float32) / 128)
    else:
        scale = opset15.constant(np.full((shape[0], 1), 1 / 128, np.float32))
        weights = opset15.multiply(opset15.convert(opset15.constant(values), "f32"), scale)
    if kind == "8 bits":
        activations = quantized(activations, -1.0, 127 / 128)
    product = opset15.matmul(activations, weights, transpose_a=False, transpose_b=True)
    # Without this hint, some CPUs would use 16 bits.
    options = {} if kind == "8 bits" else {"INFERENCE_PRECISION_HINT": "f32"}
    return Core().compile_model(Model([product], [inputs]), "CPU", options)


def seconds_of(compiled: CompiledModel) -> Seconds:
    """Return the minimum duration of a product."""
    request = compiled.create_infer_request()
    rows = np.random.default_rng(1).uniform(-1, 1, compiled.input(0).shape).astype(np.float32)
    request.get_input_tensor().data[:] = rows
    durations: list[Seconds] = []
    end = time.perf_counter() + SECONDS_PER_SHAPE
    while time.perf_counter() < end or len(durations) < MIN_REPEATS:
        start, cpu_start = time.perf_counter(), time.process_time()
        request.infer()
        cpu = (time.process_time() - cpu_start) / CORES
        durations.append((time.perf_counter() - start, cpu))
    clock, cpu_times = zip(*durations, strict=True)
    return min(clock), min(cpu_times)


def rates_of(shapes: Counter[Shape], rows: int, kind: str) -> tuple[float, float]:
    """Return operations per second of all matrices together, by wall-clock and by CPU time."""
    durations = [
        (seconds_of(compile_product(shape, rows, kind)), count) for shape, count in shapes.items()
    ]
    total = operations(shapes) * rows
    clock = total / sum(seconds[0] * count for seconds, count in durations)
    cpu = total / sum(seconds[1] * count for seconds, count in durations)
    return clock, cpu


def operations(shapes: Counter[Shape]) -> int:
    """Return the operations per token: a multiplication and an addition for each weight."""
    return 2 * sum(rows * columns * count for (rows, columns), count in shapes.items())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="seconds per measurement")
    parser.add_argument("--warm-up", type=float, default=8, help="seconds before each measurement")
    options = parser.parse_args()
    # On SIGTERM, exit normally, so that all started processes are ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = ModelFolder.open(options.model)
    shapes = matrices_of(folder)
    times = Times(options.warm_up, options.seconds)
    contestants = {"bare pipeline": bare, "joker serve": ours(over_redis=False)}
    rates: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for kind, kind_rates in rates.items():
            kind_rates.append(rates_of(shapes, options.clients, kind))
        for name, measure in contestants.items():
            told = measure(folder, options.clients, times)
            tokens = told.tokens * told.drafts
            speeds[name].append((tokens, tokens / (told.jokes * told.cpu_seconds) * CORES))
    print(f"{operations(shapes) / 1e6:.0f} million operations a token")
    for side, name in enumerate(("by the clock", "by CPU time")):
        print_shares(
            name,
            operations(shapes),
            of_side(rates, max, side),
            of_side(speeds, statistics.median, side),
        )


def of_side(
    results: dict[str, list[tuple[float, float]]], reduce: Callable[[list[float]], float], side: int
) -> dict[str, float]:
    """Reduce the rounds of each name to one value, by wall-clock (0) or by CPU time (1)."""
    return {name: reduce([pair[side] for pair in rounds]) for name, rounds in results.items()}


def print_shares(
    name: str, per_token: int, rates: dict[str, float], speeds: dict[str, float]
) -> None:
    """Print the limit that each rate sets, and the share of it that is reached."""
    for kind, rate in rates.items():
        limit = rate / per_token
        shares = ", ".join(
            f"{contestant} {speed / limit:.0%}" for contestant, speed in speeds.items()
        )
        print(
            f"{name}, {kind}: {rate / 1e9:.1f} billion operations/s, {limit:.0f} tokens/s; {shares}"
        )
    print(
        f"{name}: "
        + ", ".join(f"{contestant} {speed:.0f} tokens/s" for contestant, speed in speeds.items())
    )


if __name__ == "__main__":
    main()
