"""One trace from the server to the engine, as a collector receives it over OTLP."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from joker.compose import open_store, open_teller
from joker.core.errors import ConfigError, MissingDependencyError
from joker.core.joke import GeneratedJoke
from joker.core.logs import JsonLines
from joker.core.tracing import span, start_tracing, stop_tracing, traceparent
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import State
from joker.settings import load_settings
from joker.store import IN_MEMORY
from joker.web import create_app

if TYPE_CHECKING:
    from tests.conftest import RedisServer

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
QUERY = "/joke?prompt=Why&n=2&seed=7&candidates=1"
CHAIN = ("GET /joke", "queue", "attempt", "generate")


class Collector:
    """Receives spans over HTTP, as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        # Spans with the name of their service, in the order they arrive.
        self.spans: list[tuple[str, Any]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(collector.take(self.path, body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_request(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, body: bytes) -> int:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = str(attributes_of(resource.resource)["service.name"])
            for scope in resource.scope_spans:
                self.spans += ((service, each) for each in scope.spans)
        return 200 if path == "/v1/traces" else 404


def attributes_of(owner: Any) -> dict[str, str | int]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in owner.attributes
    }


@pytest.fixture
def collector(require: Callable[[str], None]) -> Iterator[Collector]:
    require("opentelemetry.exporter.otlp.proto.http")
    collector = Collector()
    thread = Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _no_variables_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("OTEL_", "JOKER_")):
            monkeypatch.delenv(name)


def check_chain(collector: Collector, web: str, worker: str) -> dict[str, Any]:
    """Check that a request's spans form one chain; return them by their names."""
    spans = {each.name: (service, each) for service, each in collector.spans}
    assert sorted(spans) == sorted(CHAIN)
    assert {each.trace_id.hex() for _, each in collector.spans} == {TRACE}
    assert len(collector.spans) == len(CHAIN)
    parent = bytes.fromhex(CALLER)
    before = 0
    for name in CHAIN:
        service, each = spans[name]
        assert service == (web if name == CHAIN[0] else worker)
        assert each.parent_span_id == parent
        assert before <= each.start_time_unix_nano <= each.end_time_unix_nano
        parent, before = each.span_id, each.start_time_unix_nano
    # The wait ends when the attempt begins.
    queue, attempt = spans["queue"][1], spans["attempt"][1]
    assert queue.end_time_unix_nano <= attempt.start_time_unix_nano
    return {name: each for name, (_, each) in spans.items()}


def serve_one_request(headers: dict[str, str]) -> list[dict[str, Any]]:
    """Ask an application for jokes; return the lines that it logged."""
    settings = load_settings(engine="stub", rate_limit="", pool_size=0, database=IN_MEMORY)
    work = open_teller(settings).tell
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("joker")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        app = create_app(InProcessQueue(work, workers=1), open_store(settings), settings)
        with TestClient(app) as client:
            assert client.get("/health/live", headers=headers).status_code == 200
            assert client.get(QUERY, headers=headers).status_code == 200
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_one_trace_leads_from_the_request_to_the_engine(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    lines = serve_one_request(HEADERS)
    spans = check_chain(collector, "joker-web", "joker-web")
    job_id = next(line["task_id"] for line in lines if line["message"] == "attempt")
    assert attributes_of(spans["attempt"]) == {
        "joker.job.id": job_id,
        "joker.job.attempt": 1,
        "joker.job.outcome": "told",
        "joker.job.jokes": 2,
    }
    assert attributes_of(spans["GET /joke"]) == {
        "http.request.method": "GET",
        "http.route": "/joke",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/joke",
        "joker.job.id": job_id,
    }
    generate = attributes_of(spans["generate"])
    assert generate["joker.engine.drafts"] == 2
    assert int(generate["joker.engine.tokens"]) > 2
    traced = {line["message"] for line in lines if line.get("trace_id") == TRACE}
    assert traced == {"attempt", "request"}


def test_a_failed_request_is_a_failed_span(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "jokes")
    start_tracing("joker-web")
    with span("attempt") as traced:
        traced.attributes["error.type"] = "fault"
    stop_tracing()
    ((service, failed),) = collector.spans
    assert service == "jokes"
    assert failed.status.code == failed.status.STATUS_CODE_ERROR


def test_a_retry_is_another_span_of_the_same_request(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    failures = [RuntimeError("broken")]

    def work(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
        if failures:
            raise failures.pop()
        return [GeneratedJoke("What is tried again?", "This.", 7, 1)]

    async def scenario() -> None:
        queue = InProcessQueue(work, workers=1)
        with span("request"):
            job = await queue.submit(GenerationRequest(seed=7))
        assert (await queue.wait(job.id, 50)).state is State.SUCCESS
        await queue.close()

    start_tracing("joker-web")
    asyncio.run(scenario())
    stop_tracing()
    request, queued, failed, told = sorted(
        (each for _, each in collector.spans), key=lambda each: each.start_time_unix_nano
    )
    assert [failed.name, told.name] == ["attempt", "attempt"]
    assert failed.parent_span_id == queued.span_id
    assert queued.parent_span_id == told.parent_span_id == request.span_id
    assert attributes_of(failed)["error.type"] == attributes_of(failed)["joker.job.outcome"]
    assert attributes_of(told)["joker.job.attempt"] == 2


@pytest.mark.parametrize(
    ("variable", "value", "propagated"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "", False),
        ("OTEL_SDK_DISABLED", "true", False),
        ("OTEL_TRACES_EXPORTER", "none", False),
        ("OTEL_TRACES_SAMPLER", "always_off", True),
    ],
)
def test_variables_turn_traces_off(
    variable: str,
    value: str,
    propagated: bool,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv(variable, value)
    start_tracing("joker-web")
    with span("request", parent=HEADERS["traceparent"]):
        parent = traceparent()
    stop_tracing()
    # Workers must know that a request is not sampled.
    assert (
        bool(parent and parent.startswith(f"00-{TRACE}") and parent.endswith("-00")) is propagated
    )
    assert collector.spans == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    said = r"\[tracing\]', or unset OTEL_EXPORTER_OTLP_ENDPOINT"
    with pytest.raises(MissingDependencyError, match=said):
        start_tracing("joker-web")


def test_a_protocol_that_cannot_be_spoken_is_refused_unless_traces_have_their_own(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_PROTOCOL is grpc, but only"):
        start_tracing("joker-web")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
    start_tracing("joker-web")
    with span("request"):
        pass
    stop_tracing()
    assert [each.name for _, each in collector.spans] == ["request"]


@pytest.mark.integration
def test_a_trace_crosses_redis_and_ends_with_its_processes(
    collector: Collector, redis_server: RedisServer, tmp_path: Path
) -> None:
    environment = os.environ | {
        "JOKER_BROKER": redis_server.url.removesuffix("0") + "6",
        "JOKER_DATABASE": f"sqlite:///{tmp_path}/jokes.sqlite",
        "JOKER_ENGINE": "stub",
        "JOKER_POOL_SIZE": "0",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
    }

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "joker", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    with start("serve", "--port", "0") as server, start("worker") as worker:
        try:
            assert server.stderr is not None
            address = server.stderr.readline().split()[1]
            told = httpx2.get(address + QUERY, headers=HEADERS, timeout=120)
        finally:
            # What is not exported yet is exported at the end.
            worker.terminate()
            _, worker_log = worker.communicate(timeout=60)
            server.terminate()
            server.communicate(timeout=60)
    assert told.status_code == 200
    check_chain(collector, "joker-web", "joker-worker")
    attempt = next(line for line in map(json.loads, worker_log.splitlines()) if "attempt" in line)
    assert attempt["trace_id"] == TRACE
