from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from joker.core.errors import ConfigError
from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.engines.tasks import SEQUENCE_TOKENS
from joker.generation.request import GenerationRequest
from joker.worker import WorkerMetrics


def read_figures(port: int) -> list[str]:
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return str(answer.read().decode()).splitlines()


def test_a_worker_shows_what_it_does_and_did() -> None:
    metrics = WorkerMetrics(threads=3)
    seen: list[str] = []

    with metrics.serve("127.0.0.1", 0) as port:

        def look(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
            seen.extend(read_figures(port))
            return []

        metrics.track(look)(GenerationRequest(count=2, candidates=5), GenerationListener())
        metrics.observe("told", 0.3)
        after = read_figures(port)
    assert {
        "joker:worker_threads 3.0",
        "joker:worker_busy_threads 1.0",
        f"joker:worker_tokens {10 * SEQUENCE_TOKENS}.0",
    } <= set(seen)
    assert {
        "joker:worker_tokens 0.0",
        "joker:worker_busy_threads 0.0",
        'joker:worker_attempts_total{outcome="told"} 1.0',
        'joker:worker_attempt_seconds_bucket{le="0.25"} 0.0',
        'joker:worker_attempt_seconds_bucket{le="0.5"} 1.0',
    } <= set(after)


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=rf"port {port}: .*JOKER_METRICS_PORT"),
            WorkerMetrics(threads=1).serve("127.0.0.1", port),
        ):
            raise AssertionError


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="has no /proc")
def test_memory_counts_the_engines_process() -> None:
    def read(port: int, name: str = "joker:worker_memory_bytes ") -> float:
        (line,) = [line for line in read_figures(port) if line.startswith(name)]
        return float(line.removeprefix(name))

    script = "held = b'x' * 50_000_000; print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with WorkerMetrics(threads=1).serve("127.0.0.1", 0) as port:
        alone = read(port)
        with subprocess.Popen([sys.executable, "-c", script], **pipes) as child:  # type: ignore[call-overload]
            child.stdout.readline()
            together = read(port)
            engine = read(port, "joker:worker_engine_memory_bytes ")
            child.communicate(b"\n")
        limit = read(port, "joker:worker_memory_limit_bytes ")
    assert 10_000_000 < alone < together - 50_000_000
    assert together < limit
    assert 50_000_000 < engine < together
