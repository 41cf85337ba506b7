"""Jokes a second of `joker serve` beside the original's stack, with the same weights.

    python -m benchmarks.original [--model FOLDER] [--clients 1 8 64] [--rounds 3]
                                  [--seconds 25] [--warm-up 5] [--only NAME ...]

All contestants take turns within each round, and medians are printed. The original's stack
(`benchmarks.original_stack`) runs as shipped and with one PyTorch thread per process; its clients
poll every half second, as its page does. Our server is asked with ``Prefer: wait``, is polled ten
times a second, and also runs as a web server and a worker over Redis. All of them draw one
candidate of at most 40 tokens with top-k 50 at temperature 1. The clients share the machine's cores
with the servers.

CPU time is that of all processes of a contestant, without the clients. It is less sensitive to
other load on the machine than jokes per second. With many clients, choose a warm-up and a duration
that are longer than a joke takes. The bare OpenVINO pipeline, which always generates as many jokes
as there are clients, is the upper limit of our tokens per second.

Our server rejects drafts that are truncated, lack a question or an answer, or are withheld, and
draws another instead; the others return every draft. Drafts per joke show what that costs.

Without ``--model``, a model of DistilGPT2's shape learns a few of the riddles in ``data/`` first,
so that its jokes end like jokes; this takes some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import math
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from openvino import Tensor
from openvino_genai import ContinuousBatchingPipeline, GenerationConfig, SchedulerConfig

from benchmarks.load import (
    MAX_NEW_TOKENS,
    WAIT_SECONDS,
    Ask,
    Measurement,
    Times,
    ask_original,
    ask_ours,
    first,
    load,
    poll_ours,
)
from benchmarks.servers import free_port
from joker.core.joke import Joke
from joker.core.model_folder import Manifest, ModelFolder, write_manifest
from joker.core.template import Template, load_template
from joker.engines.openvino import TOKENS_PER_STEP
from joker.engines.protocol import load_tokenizer

ROOT = Path(__file__).parent.parent
RIDDLES = ROOT / "data" / "riddles.csv"
TRAINING_JOKES = 12
STEPS = 60
BATCH = 4

PROMPTS = ("Why did", "What do you", "How", "Why", "What did", "What")
START_SECONDS = 120.0

SERVER = {
    "JOKER_CANDIDATES": "1",
    "JOKER_DEADLINE_SECONDS": str(WAIT_SECONDS),
    "JOKER_MAX_WAIT_SECONDS": str(WAIT_SECONDS),
    "JOKER_POOL_SIZE": "0",
    "JOKER_RATE_LIMIT": "",
}


Contestant = Callable[[ModelFolder, int, Times], Measurement]


def original(threads: int | None) -> Contestant:
    """Return the original's stack, with this number of PyTorch threads per process if given."""

    def measure(folder: ModelFolder, clients: int, times: Times) -> Measurement:
        template = folder.manifest.template
        tokenizer = load_tokenizer(folder, folder.path)
        start = tokenizer.decode(tokenizer.encode_prompt("")[:1])
        prompts = tuple(start + template.question_prefix + prompt for prompt in PROMPTS)
        with ExitStack() as parts:
            url, server = parts.enter_context(redis())
            environment = {"ORIGINAL_MODEL": str(folder.path), "ORIGINAL_REDIS": url}
            if threads:
                environment |= {"OMP_NUM_THREADS": str(threads)}
            app = "benchmarks.original_stack"
            worker = ["-m", "celery", "-A", f"{app}:celery", "worker", "--loglevel", "error"]
            processes = [server, parts.enter_context(process(worker, environment))]
            port = free_port()
            web = ["-m", "uvicorn", f"{app}:api", "--port", str(port), "--log-level", "error"]
            processes.append(parts.enter_context(process(web, environment)))
            wait_for_port(port)
            asyncio.run(first(port, prompts[0], ask_original))
            return asyncio.run(load(port, prompts, clients, times, ask_original, processes))

    return measure


def ours(*, over_redis: bool = False, ask: Ask = ask_ours) -> Contestant:
    """Return our server: alone, or with a worker over Redis."""

    def measure(folder: ModelFolder, clients: int, times: Times) -> Measurement:
        with ExitStack() as parts:
            place = parts.enter_context(tempfile.TemporaryDirectory())
            environment = SERVER | {
                "JOKER_MODEL": str(folder.path),
                "JOKER_DATABASE": f"sqlite:///{place}/jokes.db",
            }
            processes = []
            if over_redis:
                environment["JOKER_BROKER"], server = parts.enter_context(redis())
                worker = parts.enter_context(process(["-m", "joker", "worker"], environment))
                processes = [server, worker]
            port = free_port()
            web = ["-m", "joker", "serve", "--port", str(port)]
            processes.append(parts.enter_context(process(web, environment)))
            wait_for_port(port)
            asyncio.run(first(port, PROMPTS[0], ask))
            return asyncio.run(load(port, PROMPTS, clients, times, ask, processes))

    return measure


def bare(folder: ModelFolder, clients: int, times: Times) -> Measurement:
    """Measure OpenVINO's pipeline alone, always with `clients` requests."""
    tokenizer = load_tokenizer(folder, folder.openvino)
    scheduler = SchedulerConfig()
    scheduler.max_num_batched_tokens = TOKENS_PER_STEP
    pipeline = ContinuousBatchingPipeline(folder.openvino, scheduler, "CPU", {})
    prompts = [Tensor(np.array([tokenizer.encode_prompt(text)], np.int64)) for text in PROMPTS]
    numbers = itertools.count()

    def add() -> Any:
        number = next(numbers)
        config = GenerationConfig()
        config.set_eos_token_id(tokenizer.end_id)
        config.do_sample = True
        config.rng_seed = number
        config.top_k = 50
        config.top_p = 0.95
        config.max_new_tokens = MAX_NEW_TOKENS
        return pipeline.add_request(number, prompts[number % len(prompts)], config)

    handles = [add() for _ in range(clients)]
    for seconds in (times.warm_up, times.measured):
        jokes = tokens = 0
        cpu_start, end = time.process_time(), time.perf_counter() + seconds
        while time.perf_counter() < end:
            pipeline.step()
            for index, handle in enumerate(handles):
                if handle.get_status().name != "RUNNING":
                    jokes += 1
                    tokens += sum(len(output.generated_ids) for output in handle.read_all())
                    handles[index] = add()
    cpu = time.process_time() - cpu_start
    return Measurement(jokes / seconds, tokens / seconds, cpu / jokes if jokes else math.nan)


@contextmanager
def process(arguments: list[str], environment: dict[str, str]) -> Iterator[int]:
    """Run a Python process in its own session, yield its id, and finally kill the session."""
    started = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield started.pid
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@contextmanager
def redis() -> Iterator[tuple[str, int]]:
    """Run a Redis on a free port; yield its URL and process id."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        started = subprocess.Popen(
            ["redis-server", "--port", str(port), "--dir", folder, "--appendonly", "yes"],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_for_port(port)
            yield f"redis://127.0.0.1:{port}/0", started.pid
        finally:
            started.kill()
            started.wait()


def wait_for_port(port: int) -> None:
    """Wait until a port accepts connections."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing answers on port {port}") from None
            time.sleep(0.05)
        else:
            return


def make_model(path: Path) -> ModelFolder:
    """Train a model of DistilGPT2's shape on some riddles, and export it."""
    import torch

    from joker.training.base_model import open_base
    from joker.training.export import export_openvino

    with RIDDLES.open(newline="", encoding="utf-8") as file:
        riddles = [Joke(row["question"], row["answer"]) for row in csv.DictReader(file)]
    jokes = random.Random(0).sample(riddles, TRAINING_JOKES)
    template: Template = load_template("original")
    torch.manual_seed(0)
    base = open_base("new:distil", template, [str(joke) for joke in riddles])
    encoded = [torch.tensor(base.joke_tokenizer.encode(joke).input_ids) for joke in jokes]
    optimizer = torch.optim.AdamW(base.model.parameters(), lr=5e-4)
    base.model.train()
    for step in range(STEPS):
        rows = random.Random(step).sample(encoded, BATCH)
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        loss = base.model(input_ids=ids.clamp(min=0), labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1} of {STEPS}: loss {loss.item():.2f}", file=sys.stderr, flush=True)
    base.model.train(False)
    base.model.save_pretrained(path)
    base.tokenizer.save_pretrained(path)
    write_manifest(path, Manifest(template, "new:distil", base.context_length))
    folder = ModelFolder.open(path)
    export_openvino(folder)
    return folder


CONTESTANTS: dict[str, Contestant] = {
    "the original, as shipped": original(None),
    "the original, one thread": original(1),
    "joker serve": ours(),
    "joker serve, polled": ours(ask=poll_ours),
    "joker serve and a worker": ours(over_redis=True),
    "bare pipeline": bare,
}


def main() -> None:
    """Measure in alternating rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, help="model folder; created if it does not exist")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=25, help="seconds per measurement")
    parser.add_argument("--warm-up", type=float, default=5, help="seconds before each measurement")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    options = parser.parse_args()
    # On SIGTERM, exit normally, so that all started processes are ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    times = Times(options.warm_up, options.seconds)
    results: dict[tuple[int, str], list[Measurement]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        path = options.model or Path(temporary) / "model"
        folder = ModelFolder.open(path) if path.exists() else make_model(path)
        for _ in range(options.rounds):
            for clients, name in itertools.product(options.clients, options.only):
                measured = CONTESTANTS[name](folder, clients, times)
                results.setdefault((clients, name), []).append(measured)
                print(f"{clients:3} {name:26} {measured}", file=sys.stderr, flush=True)
    print_table(results)


def print_table(results: dict[tuple[int, str], list[Measurement]]) -> None:
    """Print medians, and ratios to the original as shipped with as many clients."""
    print(
        "| clients | | jokes/s (all rounds) | ratio | tokens/s | CPU s a joke | ratio "
        "| drafts a joke | failed |"
    )
    print("|---" * 9 + "|")
    shipped = next(iter(CONTESTANTS))
    for (clients, name), measurements in results.items():
        base = results.get((clients, shipped))
        jokes, tokens, cpu = (
            median(measurements, field) for field in ("jokes", "tokens", "cpu_seconds")
        )
        speedup = ratio(jokes, median(base, "jokes")) if base else ""
        cpu_ratio = ratio(median(base, "cpu_seconds"), cpu) if base else ""
        rounds = ", ".join(f"{measurement.jokes:.2f}" for measurement in measurements)
        failed = sum(measurement.failed for measurement in measurements)
        print(
            f"| {clients} | {name} | {jokes:.2f} ({rounds}) | {speedup} | {tokens:.0f} "
            f"| {cpu:.3f} | {cpu_ratio} | {median(measurements, 'drafts'):.2f} | {failed} |"
        )


def ratio(dividend: float, divisor: float) -> str:
    """Return a ratio for the table; "-" if a contestant told nothing."""
    return f"{dividend / divisor:.1f}" if divisor else "-"


def median(measurements: list[Measurement], field: str) -> float:
    """Return the median of a field."""
    return float(statistics.median(getattr(measurement, field) for measurement in measurements))


if __name__ == "__main__":
    main()
