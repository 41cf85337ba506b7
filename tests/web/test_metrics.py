from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from joker.settings import load_settings
from joker.store import Store
from joker.web.metrics import Metrics
from tests.store.told import add, told

CODE = """
import sys
from joker.web.metrics import Metrics
from joker.core.errors import ConfigError
from joker.jobs.queue import QueueStats
from joker.settings import Settings

try:
    metrics = Metrics(Settings())
except ConfigError as error:
    sys.exit(str(error))
metrics.jokes.inc(2)
metrics.queue_seconds.observe(0.3)
metrics.http_requests.labels("GET", "/joke", 200).inc()
print(metrics.render(QueueStats(int(sys.argv[1]), 1, 2, None)).decode())
"""


def run(folder: Path, waiting: int) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", CODE, str(waiting)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_processes_that_share_a_folder_answer_for_all(tmp_path: Path) -> None:
    run(tmp_path, 5)
    figures = run(tmp_path, 3).stdout.splitlines()
    assert {
        "joker:jokes_total 4.0",
        'joker:request_queue_time_seconds_bucket{le="0.5"} 2.0',
        'joker:http_requests_total{method="GET",route="/joke",status="200"} 2.0',
        "joker:num_requests_waiting 3.0",
        "joker:max_queue_size 64.0",
    } <= set(figures)


def read(figures: str, name: str) -> float:
    (line,) = [line for line in figures.splitlines() if line.startswith(f"{name} ")]
    return float(line.partition(" ")[2])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="has no /proc")
def test_memory_and_cpu_time_are_those_of_all_processes(tmp_path: Path) -> None:
    alone = subprocess.check_output([sys.executable, "-c", CODE, "0"], text=True)
    both, after = run_two(tmp_path)
    name = "joker:web_memory_bytes"
    assert read(both, name) > 1.5 * read(alone, name) > 0
    assert read(both, name) > 1.5 * read(after, name) > 0
    assert read(both, "joker:web_memory_limit_bytes") > read(both, name)
    name = "joker:web_cpu_seconds_total"
    assert read(after, name) >= read(both, name) > 3


ANSWERING = """
import sys, time
from joker.settings import Settings
from joker.web.metrics import Metrics

metrics = Metrics(Settings())
while sys.argv[1] == "busy" and time.process_time() < 3:
    pass
for _ in sys.stdin:
    print(metrics.render(None).decode())
    print("end", flush=True)
"""
SUPERVISOR = """
import subprocess, sys

def start(kind):
    command = [sys.executable, "-c", sys.argv[1], kind]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

def ask(process):
    print("", file=process.stdin, flush=True)
    for line in iter(process.stdout.readline, "end\\n"):
        print(line, end="")

other, busy = start("idle"), start("busy")
ask(busy)
print("killed")
busy.kill()
busy.wait()
ask(other)
other.communicate()
"""


def run_two(folder: Path) -> tuple[str, str]:
    """Return what one of two processes shows, and the other after the first was killed."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", SUPERVISOR, ANSWERING]
    shown = subprocess.check_output(command, text=True, env=environment)
    both, _, after = shown.partition("killed\n")
    return both, after


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused = run(tmp_path / "nowhere", 0)
    assert refused.returncode == 1
    assert "PROMETHEUS_MULTIPROC_DIR" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_jokes_that_are_hidden_are_counted_and_unknown_while_the_store_is_down() -> None:
    store, metrics = Store("sqlite://"), Metrics(load_settings())
    metrics.observe_store(store)
    assert read(metrics.render(None).decode(), "joker:reported_jokes") == 0
    joke = add(store, told())
    store.vote(joke, "ann", "report")
    metrics.observe_store(store)
    assert read(metrics.render(None).decode(), "joker:reported_jokes") == 1
    metrics.observe_store(Store("sqlite:////proc/none/jokes.sqlite"))
    assert math.isnan(read(metrics.render(None).decode(), "joker:reported_jokes"))
