import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from fastapi.testclient import TestClient

MakeClient = Callable[..., AbstractContextManager[TestClient]]


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
