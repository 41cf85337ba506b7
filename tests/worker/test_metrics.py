from __future__ import annotations

import socket
from urllib.request import urlopen

import pytest

from joker.core.errors import ConfigError
from joker.core.sampling import Sampling
from joker.jobs.job import JokeRequest, JokeResult
from joker.jobs.queue import Progress
from joker.worker.metrics import WorkerMetrics


class Silence:
    """Hears what work says, and says nothing."""

    def partial(self, index: int, question: str, answer: str) -> None:
        pass

    def joke(self, index: int, joke: JokeResult) -> None:
        pass

    def stopped(self) -> bool:
        return False


def read_figures(port: int) -> list[str]:
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return str(answer.read().decode()).splitlines()


def test_a_worker_shows_what_it_does_and_did() -> None:
    metrics = WorkerMetrics(threads=3)
    seen: list[str] = []

    with metrics.exposed("127.0.0.1", 0) as port:

        def look(request: JokeRequest, progress: Progress) -> list[JokeResult]:
            seen.extend(read_figures(port))
            return []

        metrics.busy(look)(JokeRequest("", 1, Sampling(), 7, True, 1), Silence())
        metrics.observe("told", 0.3)
        after = read_figures(port)
    assert {"joker:worker_threads 3.0", "joker:worker_busy_threads 1.0"} <= set(seen)
    assert {
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
            WorkerMetrics(threads=1).exposed("127.0.0.1", port),
        ):
            raise AssertionError
