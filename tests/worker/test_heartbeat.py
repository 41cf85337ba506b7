from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from joker import worker
from joker.core.errors import ConfigError
from joker.worker import heartbeat_file

if TYPE_CHECKING:
    from tests.conftest import RedisServer


def test_the_file_stays_young_and_goes_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_TOUCH_SECONDS", 0.01)
    file = tmp_path / "heartbeat"
    with heartbeat_file(file, lambda: True):
        os.utime(file, (0, 0))
        until = time.monotonic() + 60
        while file.stat().st_mtime == 0:
            assert time.monotonic() < until, "the file grew old"
            time.sleep(0.01)
    assert not file.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"nowhere.*JOKER_HEARTBEAT"),
        heartbeat_file(tmp_path / "nowhere" / "heartbeat", lambda: True),
    ):
        pass


# A signal's handler runs in the main thread, which is the one that looks for jobs. Celery has no
# handler for this signal.
WORKER = """
import signal, sys, time
from pathlib import Path
from joker.settings import load_settings
from joker import worker

worker._TOUCH_SECONDS, worker._STUCK_SECONDS = 0.1, 4.0
signal.signal(signal.SIGALRM, lambda *_: time.sleep(600))
settings = load_settings(broker=sys.argv[1], heartbeat=Path(sys.argv[2]), concurrency=1)
worker.run_worker(settings, lambda: None)
"""


@pytest.mark.integration
def test_the_file_of_a_worker_grows_old_only_if_it_no_longer_looks_for_jobs(
    start_redis: Callable[[], RedisServer], tmp_path: Path
) -> None:
    redis = start_redis()
    file = tmp_path / "heartbeat"

    def age_seconds() -> float:
        return time.time() - file.stat().st_mtime

    def wait_until(condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.1)

    def is_looking() -> bool:
        with Redis.from_url(redis.url) as client:
            return any(each["cmd"] == "brpop" for each in client.client_list())

    def is_young_for(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until and age_seconds() < 3:
            time.sleep(0.1)
        return age_seconds() < 3

    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen([sys.executable, "-c", WORKER, redis.url, file], stderr=log)
    try:
        wait_until(file.exists)
        wait_until(is_looking)
        assert is_young_for(8)
        redis.stop()
        assert is_young_for(8), "a new process would not reach it either"
        redis.start()
        wait_until(is_looking)
        assert is_young_for(1)
        worker.send_signal(signal.SIGALRM)
        assert not is_young_for(60)
    finally:
        worker.kill()
        worker.wait()
