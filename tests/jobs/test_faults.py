from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import RedisServer

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
def test_no_job_is_lost_or_told_twice_while_everything_fails(redis_server: RedisServer) -> None:
    assert redis_server
    command = [sys.executable, "-m", "benchmarks.faults", "--jobs", "200", "--work-seconds", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line[:34].strip(): line[34:].strip() for line in done.stdout.splitlines()}
    assert int(rows["jobs"]) >= 200
    assert int(rows["told"]) + int(rows["failed with a reason"]) == int(rows["jobs"])
    assert rows["faults never injected"] == "0"
