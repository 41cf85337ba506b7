import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from joker.core.errors import QueueDownError
from joker.core.model_folder import BUNDLED
from joker.generation.moderation import CATEGORIES
from joker.jobs.job import Job
from joker.jobs.queue import QueueStats
from joker.web.routes import operation

MakeClient = Callable[..., AbstractContextManager[TestClient]]


def test_a_live_process_says_so(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}


@pytest.fixture
def submitted(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Return the jobs that the application's queue takes in."""
    app = client.app
    assert isinstance(app, FastAPI)
    jobs: list[Job] = []
    submit = app.state.queue.submit

    async def remember(*arguments: object, **options: object) -> Job:
        jobs.append(await submit(*arguments, **options))
        return jobs[-1]

    monkeypatch.setattr(app.state.queue, "submit", remember)
    return jobs


def test_ready_is_proven_by_a_joke_and_then_taken_from_it(
    client: TestClient, submitted: list[Job]
) -> None:
    for _ in range(3):
        assert client.get("/health/ready").json() == {"status": "ok"}
    assert len(submitted) == 1


def test_a_joke_that_a_client_heard_proves_it(client: TestClient, submitted: list[Job]) -> None:
    client.get("/joke")
    assert client.get("/health/ready").status_code == 200
    assert len(submitted) == 1


def test_not_ready_while_no_worker_tells(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation, "_PROBE_SECONDS", 0.05)
    with make_client() as client:
        client.post("/generate", json={"prompt": "hang"})
        unready = client.get("/health/ready")
        assert unready.status_code == 503
        assert "no worker" in unready.json()["detail"]
        assert client.get("/health/live").status_code == 200


def test_not_ready_while_the_queue_is_down(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = client.app
    assert isinstance(app, FastAPI)

    async def fail() -> QueueStats:
        raise QueueDownError("Redis cannot be reached; start it")

    monkeypatch.setattr(app.state.queue, "stats", fail)
    unready = client.get("/health/ready")
    assert unready.status_code == 503
    assert "the queue cannot be reached" in unready.json()["detail"]
    assert "Redis" not in unready.text


def test_info_tells_limits_and_defaults(make_client: MakeClient) -> None:
    with make_client(max_count=4, candidates=2) as client:
        info = client.get("/info").json()
    assert info["limits"]["jokes"] == 4
    assert info["defaults"]["candidates"] == 2
    assert info["defaults"]["top_k"] == 50


def test_info_names_the_model_and_what_moderation_flags(client: TestClient) -> None:
    info = client.get("/info").json()
    assert info["categories"] == list(CATEGORIES)
    model = info["model"]
    assert model.pop("size_bytes") == (BUNDLED / "openvino/openvino_model.bin").stat().st_size
    assert model == {
        "name": "bundled",
        "engine": "openvino",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "license": "apache-2.0",
    }


@pytest.mark.parametrize(
    ("settings", "name", "engine"),
    [
        ({"model": "elsewhere"}, "elsewhere", "openvino"),
        (
            {"engine_url": "http://localhost:1/v1", "engine_model": "elsewhere"},
            "elsewhere",
            "remote",
        ),
        ({"engine": "stub"}, "stub", "stub"),
    ],
)
def test_a_model_that_is_not_on_this_machine_is_named_only(
    make_client: MakeClient, settings: dict[str, str], name: str, engine: str
) -> None:
    with make_client(**settings) as client:
        model = client.get("/info").json()["model"]
    assert (model["name"], model["engine"], model["size_bytes"]) == (name, engine, None)


def read_figures(client: TestClient) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_jokes_and_outcomes_are_counted(client: TestClient) -> None:
    client.get("/joke?n=3")
    client.get("/joke?prompt=fail")
    figures = read_figures(client)
    assert figures["joker:jokes_total"] == 3
    assert figures["joker:prompt_tokens_total"] == 9
    assert figures["joker:generation_tokens_total"] == 27
    assert figures['joker:request_outcome_total{reason="success"}'] == 1
    assert figures['joker:request_outcome_total{reason="failure"}'] == 1
    assert figures["joker:e2e_request_latency_seconds_count"] == 2
    assert figures["joker:time_to_first_joke_seconds_count"] == 1
    route = 'joker:http_requests_total{method="GET",route="/joke",status="200"}'
    assert figures[route] == 1


def test_running_and_waiting_jobs_are_told_apart(client: TestClient) -> None:
    tasks = [client.post("/generate", json={"prompt": "hang"}).json() for _ in range(3)]
    while (figures := read_figures(client))["joker:num_requests_running"] != 1:
        time.sleep(0.01)
    assert figures["joker:num_requests_waiting"] == 2
    for task in tasks:
        client.delete(f"/generate/{task['task_id']}")
    while read_figures(client)["joker:num_requests_running"] != 0:
        time.sleep(0.01)


def test_what_alerts_compare_with_is_there(make_client: MakeClient) -> None:
    with make_client(max_queue_size=5, deadline_seconds=7) as client:
        figures = read_figures(client)
    assert figures["joker:queue_up"] == 1
    assert figures["joker:num_workers"] == 1
    assert figures["joker:max_queue_size"] == 5
    assert figures["joker:deadline_seconds"] == 7


def test_no_label_grows_with_what_clients_send(client: TestClient) -> None:
    task_id = client.post("/generate", json={}).json()["task_id"]
    client.get(f"/generate/{task_id}")
    client.request("WEIRD", "/some/where")
    text = client.get("/metrics").text
    assert task_id not in text
    assert "WEIRD" not in text
    assert "/some/where" not in text


def test_metrics_are_not_public_behind_a_reverse_proxy(client: TestClient) -> None:
    for header in ("X-Forwarded-For", "Forwarded"):
        assert client.get("/metrics", headers={header: "192.0.2.1"}).status_code == 404
    assert client.get("/metrics").status_code == 200
