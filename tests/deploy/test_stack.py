from __future__ import annotations

import collections
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

STACK = Path(__file__).parents[2] / "deploy" / "stack.py"
JOBS = 24


class RunningStack:
    """A stack that a test drives; what its processes say is kept."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, STACK],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("JOKER_")}
            | {"JOKER_RATE_LIMIT": "", "JOKER_LEASE_SECONDS": "2"},
        )
        self.lines: list[str] = []
        self.keeper = threading.Thread(target=self._keep, daemon=True)
        self.keeper.start()
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.address: str = told["address"]
        self.pids: dict[str, int] = told["pids"]

    def find_tellers(self) -> dict[str, set[str]]:
        """Return, by job, the workers that say they told it."""
        tellers = collections.defaultdict(set)
        for line in list(self.lines):
            found = re.match(r"(worker-\d).*joker\.tell\[(\S+)\] succeeded", line)
            if found:
                tellers[found[2]].add(found[1])
        return tellers

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
    answer = client.post("/generate", json={"textprompt": "Why do", **given})
    assert answer.status_code == 202
    task_id: str = answer.json()["task_id"]
    return task_id


def wait_for(client: httpx2.Client, task_id: str) -> dict[str, Any]:
    until = time.monotonic() + 90
    while True:
        job: dict[str, Any] = client.get(f"/generate/{task_id}").json()
        if job["state"] not in ("PENDING", "STARTED"):
            return job
        assert time.monotonic() < until, job
        time.sleep(0.1)


pytestmark = pytest.mark.integration


def test_the_page_the_api_and_its_documentation_answer(client: httpx2.Client) -> None:
    assert "Tell me a joke" in client.get("/").text
    assert client.get("/docs").status_code == 200
    assert client.get("/health/ready").json() == {"status": "ok"}
    assert len(client.get("/joke").text.splitlines()) >= 2


def test_a_job_streams_from_any_process_of_the_server(client: httpx2.Client) -> None:
    task_id = ask(client)
    for _ in range(4):
        with client.stream("GET", f"/generate/{task_id}/events") as stream:
            names = [line.split()[1] for line in stream.iter_lines() if line.startswith("event:")]
        assert names[-1] == "state"
        assert "joke" in names


def test_a_key_gives_the_same_job_whoever_is_asked(client: httpx2.Client) -> None:
    headers = {"Idempotency-Key": "the stack's", "Connection": "close"}
    body = {"textprompt": "Why do", "seed": 5}
    answers = [client.post("/generate", json=body, headers=headers) for _ in range(6)]
    assert len({answer.json()["task_id"] for answer in answers}) == 1


def test_a_body_that_is_too_large_is_refused(client: httpx2.Client) -> None:
    answer = client.post("/generate", json={"textprompt": "x" * 100_000})
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_killed_worker_loses_no_job_and_both_workers_tell(
    stack: RunningStack, client: httpx2.Client
) -> None:
    jobs = [ask(client, n=5, seed=number) for number in range(JOBS)]
    states = [client.get(f"/generate/{job}").json()["state"] for job in jobs]
    assert "STARTED" in states
    os.kill(stack.pids["worker-1"], signal.SIGKILL)
    told = [wait_for(client, job) for job in jobs]
    assert {job["state"] for job in told} == {"SUCCESS"}
    assert all(len(job["result"]) == 5 for job in told)
    again = [ask(client, seed=number) for number in range(JOBS)]
    assert {wait_for(client, job)["state"] for job in again} == {"SUCCESS"}
    tellers = stack.find_tellers()
    assert all(len(tellers[job]) == 1 for job in [*jobs, *again]), "told once"
    until = time.monotonic() + 90
    while {name for names in stack.find_tellers().values() for name in names} != {
        "worker-1",
        "worker-2",
    }:
        assert time.monotonic() < until, "one worker tells nothing"
        wait_for(client, ask(client))
