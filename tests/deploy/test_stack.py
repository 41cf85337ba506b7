from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from deploy import stack as stack_module
from deploy.stack import POSTGRES
from tests.deploy.dockerfile import STAGES

STACK = Path(__file__).parents[2] / "deploy" / "stack.py"
JOBS = 12


class RunningStack:
    """A stack that a test drives; what its processes say is kept."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, STACK],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("JOKER_")}
            # Picked jokes fill the pool, so there are no other jobs than those of the tests.
            | {"JOKER_POOL_SIZE": "1"}
            | {"JOKER_RATE_LIMIT": "", "JOKER_LEASE_SECONDS": "2", "JOKER_DEADLINE_SECONDS": "300"},
        )
        self.lines: list[str] = []
        self.keeper = threading.Thread(target=self._keep, daemon=True)
        self.keeper.start()
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.address: str = told["address"]
        self.database: str | None = told["database"]
        self.pids: dict[str, int] = told["pids"]

    def find_tellers(self) -> set[str]:
        """Return the workers that told jokes, by their own log."""
        told = re.compile(r'(worker-\d).*"outcome": "told"')
        return {match[1] for line in list(self.lines) if (match := told.match(line))}

    def _keep(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))


@pytest.fixture(scope="module")
def stack() -> Iterator[RunningStack]:
    if shutil.which("redis-server") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    running = RunningStack()
    with running.process:
        yield running
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(120) == 0
        running.keeper.join(60)
    assert "Traceback" not in "".join(running.lines)
    for pid in running.pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.fixture
def client(stack: RunningStack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.address, timeout=90) as client:
        yield client


def ask(client: httpx2.Client, **given: Any) -> str:
    answer = client.post("/generate", json={"textprompt": "", **given})
    assert answer.status_code == 202
    task_id: str = answer.json()["task_id"]
    return task_id


pytestmark = pytest.mark.integration


def test_the_web_server_has_the_images_options() -> None:
    own = stack_module.UVICORN
    _, *words = STAGES["web-maintained"].command
    image = [
        str(STACK.parent / Path(word).name) if word.startswith("/etc/") else word for word in words
    ]
    for option in ("--host", "--port"):
        at = image.index(option)
        del image[at : at + 2]
    assert own == image


def test_the_page_the_api_and_its_documentation_answer(client: httpx2.Client) -> None:
    assert "Tell me a joke" in client.get("/").text
    assert client.get("/docs").status_code == 200
    assert client.get("/health/ready").json() == {"status": "ok"}
    assert len(client.get("/joke").text.splitlines()) >= 2


def test_a_joke_of_the_pool_is_voted_to_the_top(stack: RunningStack, client: httpx2.Client) -> None:
    client.headers["Accept"] = "application/json"
    told = client.get("/joke").json()
    assert told["task_id"] is None
    (joke,) = told["result"]
    vote = client.post(f"/jokes/{joke['id']}/votes", json={"vote": "up"})
    assert vote.json()["up"] == 1
    (best,) = client.get("/jokes/top").json()["jokes"]
    assert (best["id"], best["answer"]) == (joke["id"], joke["answer"])
    assert best["votes"] == vote.json()
    (line,) = [line for line in stack.lines if "jokes and votes go to" in line]
    if POSTGRES is None:
        assert "SQLite" in line
        return
    psycopg = pytest.importorskip("psycopg")
    assert "PostgreSQL" in line
    with psycopg.connect(stack.database) as connection:
        assert connection.execute("SELECT count(*) FROM votes").fetchall() == [(1,)]


def test_without_postgresql_the_store_is_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("JOKER_DATABASE", raising=False)
    monkeypatch.setattr(stack_module, "POSTGRES", None)
    stack = stack_module.Stack({})
    assert stack_module._start_postgres(stack, tmp_path) == (
        "your own SQLite store, because PostgreSQL is not installed"
    )
    assert "JOKER_DATABASE" not in stack.environment
    assert not stack.processes


def test_a_job_streams_from_any_process_of_the_server(client: httpx2.Client) -> None:
    task_id = ask(client)
    streams = [[name for name, _ in follow(client, task_id)] for _ in range(4)]
    assert all("joke" in names and names[-1] == "state" for names in streams)


def test_a_key_gives_the_same_job_whoever_is_asked(client: httpx2.Client) -> None:
    headers = {"Idempotency-Key": "the stack's", "Connection": "close"}
    body = {"textprompt": "Why do", "seed": 5}
    answers = [client.post("/generate", json=body, headers=headers) for _ in range(6)]
    assert len({answer.json()["task_id"] for answer in answers}) == 1


def test_a_body_that_is_too_large_is_refused(client: httpx2.Client) -> None:
    answer = client.post("/generate", json={"textprompt": "x" * 100_000})
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"


def follow(client: httpx2.Client, task_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Return a job's events from the first to the last."""
    with client.stream("GET", f"/generate/{task_id}/events") as stream:
        lines = [line.partition(": ") for line in stream.iter_lines()]
    names = [value for name, _, value in lines if name == "event"]
    data = [json.loads(value) for name, _, value in lines if name == "data"]
    return list(zip(names, data, strict=True))


def test_a_killed_worker_loses_no_job_and_both_workers_tell(
    stack: RunningStack, client: httpx2.Client
) -> None:
    jobs = [ask(client, n=5, seed=number, candidates=2) for number in range(JOBS)]
    states = [client.get(f"/generate/{job}").json()["state"] for job in jobs]
    assert "STARTED" in states
    os.kill(stack.pids["worker-1"], signal.SIGKILL)
    for job in jobs:
        events = follow(client, job)
        seen = [data["state"] for name, data in events if name == "state"]
        assert [state for state in seen if state not in ("PENDING", "STARTED")] == ["SUCCESS"]
        assert len(events[-1][1]["result"]) == 5
        # What a lost attempt told counts no more; the last one tells each joke once.
        last = max(at for at, (_, data) in enumerate(events) if data.get("state") == "STARTED")
        told = [data["index"] for name, data in events[last:] if name == "joke"]
        assert sorted(told) == [0, 1, 2, 3, 4]
    until = time.monotonic() + 120
    while stack.find_tellers() != {"worker-1", "worker-2"}:
        assert time.monotonic() < until, "the killed worker did not come back"
        for job in [ask(client, candidates=2) for _ in range(8)]:
            follow(client, job)
