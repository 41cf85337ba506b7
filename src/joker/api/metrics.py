"""The figures that Prometheus scrapes, named in vLLM's manner; none has a label per task."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

_JOKE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
_HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0)


class Metrics:
    """One process's figures.

    Attributes:
        registry: What `/metrics` exposes.
        running: Jobs that are being told.
        waiting: Jobs that wait for a worker, in the whole queue.
        jokes: Jokes told.
        outcomes: What became of requests for jokes, by reason.
        latency_seconds: From being taken in to the final state.
        queue_seconds: From being taken in to a worker's beginning.
        first_joke_seconds: From being taken in to the first joke.
        http_requests: Answers by method, route and status.
        http_seconds: How long answers took, streams to their end, by method and route.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.running = Gauge("joker:num_requests_running", "Jobs being told.", registry=registry)
        self.waiting = Gauge(
            "joker:num_requests_waiting", "Jobs waiting for a worker.", registry=registry
        )
        self.jokes = Counter("joker:jokes", "Jokes told.", registry=registry)
        self.outcomes = Counter(
            "joker:request_outcome", "Requests for jokes by outcome.", ["reason"], registry=registry
        )
        self.latency_seconds = Histogram(
            "joker:e2e_request_latency_seconds",
            "From being taken in to the final state.",
            buckets=_JOKE_BUCKETS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "joker:request_queue_time_seconds",
            "From being taken in to a worker's beginning.",
            buckets=_JOKE_BUCKETS,
            registry=registry,
        )
        self.first_joke_seconds = Histogram(
            "joker:time_to_first_joke_seconds",
            "From being taken in to the first joke.",
            buckets=_JOKE_BUCKETS,
            registry=registry,
        )
        self.http_requests = Counter(
            "joker:http_requests",
            "HTTP answers.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.http_seconds = Histogram(
            "joker:http_request_duration_seconds",
            "How long HTTP answers took.",
            ["method", "route"],
            buckets=_HTTP_BUCKETS,
            registry=registry,
        )
