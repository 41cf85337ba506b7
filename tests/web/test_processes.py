"""Two servers and a worker, each a process of its own, over one Redis: what they share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import VectorSelector, parse

if TYPE_CHECKING:
    from tests.conftest import RedisServer

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).with_name("stub.py")
DEPLOY = Path(__file__).parents[2] / "deploy"
RATE = 6
WAIT = {"Prefer": "wait=30"}
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("JOKER_")}
ENVIRONMENT["JOKER_POOL_SIZE"] = "0"  # no other jobs than those of the tests
SETTINGS = {
    "JOKER_API_KEYS": "one,two,three,four,five,six",
    "JOKER_MAX_QUEUE_SIZE": "2",
    "JOKER_RATE_LIMIT": f"{RATE}/hour",
}

# Each test has a key, and so a rate, of its own.
Clients = Callable[[str], tuple[httpx2.Client, httpx2.Client]]


@contextmanager
def running(*command: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, *command], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT | environment
    ) as process:
        yield process
        process.terminate()
        process.communicate(timeout=60)


@contextmanager
def server(url: str, **environment: str) -> Iterator[str]:
    """Run a server and give its address."""
    command = ("-m", "joker", "serve", "--port", "0", "--broker", url)
    with running(*command, **environment) as process:
        assert process.stderr is not None
        yield process.stderr.readline().split()[1]


@pytest.fixture(scope="module")
def redis(start_redis: Callable[[], RedisServer]) -> RedisServer:
    """Return a Redis of this module's own, which tests may stop and start."""
    return start_redis()


@pytest.fixture(scope="module")
def clients(redis: RedisServer) -> Iterator[Clients]:
    """Return ``clients(key)``: one for each of two servers."""
    with ExitStack() as parts:
        servers = [parts.enter_context(server(redis.url, **SETTINGS)) for _ in range(2)]

        def connect(key: str) -> tuple[httpx2.Client, httpx2.Client]:
            headers = {"Authorization": f"Bearer {key}"}
            one, other = (
                parts.enter_context(httpx2.Client(base_url=address, headers=headers, timeout=60))
                for address in servers
            )
            return one, other

        yield connect


@pytest.fixture(scope="module")
def worker_log(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the log of a worker that runs."""
    path = tmp_path_factory.mktemp("worker") / "log"
    with path.open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, SCRIPT, redis.url],
            stderr=log,
            env=ENVIRONMENT | {"JOKER_METRICS_PORT": "0"},
        )
    yield path
    worker.terminate()
    worker.wait(60)


def test_without_a_worker_nobody_is_ready(clients: Clients) -> None:
    for client in clients("one"):
        unready = client.get("/health/ready")
        assert unready.status_code == 503
        assert "joker worker" in unready.json()["detail"]
        assert client.get("/health/live").status_code == 200


def test_a_full_queue_is_full_for_all(clients: Clients) -> None:
    one, other = clients("one")
    taken = [client.post("/generate", json={}) for client in (one, other)]
    assert [answer.status_code for answer in taken] == [202, 202]
    for client in (one, other):
        away = client.post("/generate", json={})
        assert (away.status_code, away.headers["Retry-After"]) == (503, "5")
    for answer in taken:
        one.delete(answer.headers["Location"])


def test_rates_are_counted_together(clients: Clients, worker_log: Path) -> None:
    one, other = clients("two")
    assert one.get("/joke", params={"n": RATE - 1}).status_code == 200
    assert other.get("/joke", params={"n": 2}).status_code == 429
    told = other.get("/joke")
    assert told.status_code == 200
    assert told.headers["RateLimit"].startswith('"jokes";r=0;')
    assert one.get("/joke").status_code == 429


def test_a_job_of_one_server_is_followed_at_the_other(clients: Clients, worker_log: Path) -> None:
    one, other = clients("three")
    job = one.post("/generate", json={"n": 2}, headers=WAIT).json()
    address = f"/generate/{job['task_id']}"
    assert other.get(address).json() == job
    whole = one.get(f"{address}/events").text
    second = whole.index("\n\n") + 2
    seen = next(line[4:] for line in whole.splitlines() if line.startswith("id: "))
    assert other.get(f"{address}/events", headers={"Last-Event-ID": seen}).text == whole[second:]


def test_a_key_belongs_to_its_client_at_every_server(clients: Clients, worker_log: Path) -> None:
    key = {"Idempotency-Key": "mine"}
    jobs = [
        client.post("/generate", json={}, headers=key | WAIT).json()
        for client in (*clients("four"), *clients("five"))
    ]
    assert jobs[0] == jobs[1]
    assert jobs[2] == jobs[3]
    assert jobs[0]["task_id"] != jobs[2]["task_id"]
    assert jobs[0]["seed"] != jobs[2]["seed"]


def test_a_request_is_found_by_its_id_in_the_workers_log(
    clients: Clients, worker_log: Path
) -> None:
    one, _ = clients("three")
    body = {"prompt": "private"}
    job = one.post("/generate", json=body, headers=WAIT | {"X-Request-ID": "find-me"}).json()
    until = time.monotonic() + 30
    while "find-me" not in worker_log.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    lines = worker_log.read_text().splitlines()
    (line,) = [json.loads(line) for line in lines if "find-me" in line]
    assert (line["task_id"], line["outcome"]) == (job["task_id"], "told")
    assert not any("private" in line for line in lines)


def test_dashboard_and_alerts_use_only_figures_that_exist(
    redis: RedisServer, worker_log: Path, tmp_path: Path
) -> None:
    # As in the containers, whose processes share their metrics.
    with server(redis.url, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)) as address:
        # A histogram has its labels once something was observed.
        httpx2.post(f"{address}/generate", json={}, headers=WAIT, timeout=60)
        shown = httpx2.get(f"{address}/metrics").text
    lines = map(json.loads, worker_log.read_text().splitlines())
    port = next(line["metrics_port"] for line in lines if line["message"] == "ready")
    shown += httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    there: dict[str, dict[str, set[str]]] = {"up": {}}
    for family in text_string_to_metric_families(shown):
        for sample in family.samples:
            labels = there.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)

    selectors = [selector for text in read_expressions() for selector in select(parse(text))]
    for selector in selectors:
        assert selector.name in there
        for matcher in selector.matchers.matchers:
            if matcher.name == "job":  # Prometheus adds it.
                continue
            assert matcher.name in there[selector.name]
            if matcher.name != "status":  # Any may come.
                assert set(matcher.value.split("|")) <= there[selector.name][matcher.name]


def read_expressions() -> list[str]:
    """Return all PromQL of the dashboard and the alerts."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert all(rule["annotations"].keys() == {"summary", "description"} for rule in rules)
    return [text.replace("$__rate_interval", "5m") for text in shown] + [
        rule["expr"] for rule in rules
    ]


def select(expression: Any) -> Iterator[VectorSelector]:
    """Yield every selector of a parsed expression."""
    if isinstance(expression, VectorSelector):
        yield expression
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        if (part := getattr(expression, name, None)) is not None:
            yield from select(part)
    for part in getattr(expression, "args", ()):
        yield from select(part)


def test_while_redis_is_away_clients_learn_nothing_of_the_inside(
    clients: Clients, worker_log: Path, redis: RedisServer
) -> None:
    one, other = clients("six")
    job = one.post("/generate", json={}, headers=WAIT).json()
    address = f"/generate/{job['task_id']}"
    # Redis writes its file every second.
    time.sleep(1.1)
    redis.stop()
    answers = [
        one.post("/generate", json={}),
        one.post("/v1/completions", json={}),
        other.get(address),
        other.get(f"{address}/events"),
        other.delete(address),
        other.get("/joke"),
        one.get("/health/ready"),
    ]
    assert {answer.status_code for answer in answers} == {503}
    for answer in answers:
        assert answer.headers["Retry-After"] == "5"
        body = answer.json()
        said = body["detail"] if "detail" in body else body["error"]["message"]
        assert "try again in a few seconds" in said
        assert "redis" not in answer.text.lower()
        assert "127.0.0.1" not in answer.text
    assert "joker:queue_up 0.0" in one.get("/metrics").text
    assert one.get("/health/live").status_code == 200
    redis.start()
    assert other.get(address).json() == job
    assert one.post("/generate", json={}, headers=WAIT).json()["state"] == "SUCCESS"
