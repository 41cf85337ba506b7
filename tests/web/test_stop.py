"""SIGTERM to real processes: at once while they start, and after the jobs in hand once they run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from redis import Redis

if TYPE_CHECKING:
    from tests.conftest import RedisServer

pytestmark = pytest.mark.integration

STUB = Path(__file__).with_name("stub.py")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("JOKER_")}
ENVIRONMENT["JOKER_POOL_SIZE"] = "0"  # no other jobs than those of the tests
UVICORN = [
    *["-m", "uvicorn", "--factory", "joker.web.app:open_app"],
    *["--http", "joker.web.server:Connection", "--timeout-graceful-shutdown", "65"],
]


@pytest.mark.parametrize("seconds", [0.2, 1.0])
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "joker", "serve", "--port=0"],
        ["-m", "joker", "worker"],
        [*UVICORN, "--port=0"],
        [*UVICORN, "--port=0", "--workers=2"],
    ],
    ids=["serve", "worker", "uvicorn", "uvicorn, two processes"],
)
def test_a_stop_while_starting_is_quick(
    redis_server: RedisServer, command: list[str], seconds: float
) -> None:
    environment = ENVIRONMENT | {"JOKER_BROKER": redis_server.url.removesuffix("0") + "9"}
    with subprocess.Popen(
        [sys.executable, *command], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        time.sleep(seconds)
        process.terminate()
        # Far less than the grace period, however busy this machine is.
        assert process.wait(30) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


def test_a_stopped_server_and_worker_finish_the_job_in_hand(redis_server: RedisServer) -> None:
    url = redis_server.url.removesuffix("0") + "10"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = ENVIRONMENT | {"JOKER_BROKER": url, "JOKER_RATE_LIMIT": ""}
    processes = [
        subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL)
        for command in ([*UVICORN, f"--port={port}", "--workers=2"], [str(STUB), url])
    ]
    answers: list[httpx2.Response] = []

    def ask() -> None:
        headers = {"Prefer": "wait=30"}
        body = {"prompt": "slow"}
        answers.append(httpx2.post(f"{address}/generate", json=body, headers=headers, timeout=60))

    try:
        wait_until(lambda: httpx2.get(f"{address}/health/live").status_code == 200)
        client = threading.Thread(target=ask)
        client.start()
        wait_until(
            lambda: "joker:num_requests_running 1.0" in httpx2.get(f"{address}/metrics").text
        )
        for process in processes:
            process.terminate()
        client.join(60)
        assert [answer.json()["state"] for answer in answers] == ["SUCCESS"]
        for process in processes:
            assert process.wait(60) in (0, -signal.SIGTERM)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_stopped_server_says_where_a_job_goes_on_and_what_to_ask_again(
    redis_server: RedisServer,
) -> None:
    url = redis_server.url.removesuffix("0") + "11"
    command = [sys.executable, "-m", "joker", "serve", "--port=0", f"--broker={url}"]
    with (
        subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process,
        httpx2.Client(timeout=60) as client,
    ):
        assert process.stderr is not None
        address = process.stderr.readline().split()[1]
        # Without a worker, all three would wait for a minute.
        with ThreadPoolExecutor() as pool:
            job = client.post(f"{address}/generate", json={}).headers["Location"]
            waiting = pool.submit(
                client.post, f"{address}/generate", json={}, headers={"Prefer": "wait=30"}
            )
            telling = pool.submit(client.get, f"{address}/joke?prompt=cats")
            stream = pool.submit(client.get, f"{address}{job}/events")
            wait_until(
                lambda: "joker:num_requests_waiting 3.0" in client.get(f"{address}/metrics").text
            )
            process.terminate()
            log = process.stderr.read()
        assert waiting.result().status_code == 202
        assert waiting.result().json()["state"] == "PENDING"
        assert waiting.result().headers["Location"].startswith("/generate/")
        assert telling.result().status_code == 503
        assert telling.result().headers["Content-Type"] == "application/problem+json"
        assert telling.result().headers["Retry-After"]
        assert "stopping" in telling.result().json()["detail"]
        assert [line for line in stream.result().text.splitlines() if "PENDING" in line]
    assert process.returncode == -signal.SIGTERM
    assert "Traceback" not in log
    assert {json.loads(line)["level"] for line in log.splitlines()} <= {"info"}
    with Redis.from_url(url) as redis:
        assert redis.zcard("{joker}:waiting") == 2, "nobody could fetch the third"


def test_a_server_ends_though_its_event_loop_is_busy(redis_server: RedisServer) -> None:
    """As it is for longer than anybody waits when it ends thousands of streams."""
    script = """
import sys, time
from joker.cli import main
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.web import server

async def stop(queue):
    time.sleep(1000)

CeleryRedisQueue.stop = stop
server._FINISH_SECONDS = 0
main()
"""
    arguments = ["serve", "--port=0", f"--broker={redis_server.url.removesuffix('0')}12"]
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[1]
        try:
            job = httpx2.post(f"{address}/generate", json={}, timeout=60).headers["Location"]
            with (
                httpx2.Client(timeout=120) as client,
                client.stream("GET", f"{address}{job}/events") as stream,
            ):
                process.terminate()
                with pytest.raises(httpx2.RemoteProtocolError):
                    stream.read()
        except BaseException:
            process.kill()
            raise
        assert "ended with requests still open" in process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while True:
        try:
            if condition():
                return
        except httpx2.HTTPError:
            pass
        assert time.monotonic() < until
        time.sleep(0.1)
