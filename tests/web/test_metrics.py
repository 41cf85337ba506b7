from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    alone = run(tmp_path, 0).stdout
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", f"{CODE}\nsys.stdout.flush()\ninput()", "0"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as other:  # type: ignore[call-overload]
        other.stdout.readline()
        together = run(tmp_path, 0).stdout
        other.communicate("\n")
    after = run(tmp_path, 0).stdout
    for name in ("joker:web_memory_bytes", "joker:web_cpu_seconds_total"):
        assert read(together, name) > 1.5 * read(alone, name) > 0
        assert read(together, name) > 1.5 * read(after, name) > 0


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused = run(tmp_path / "nowhere", 0)
    assert refused.returncode == 1
    assert "PROMETHEUS_MULTIPROC_DIR" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
