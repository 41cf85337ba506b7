"""Servers and workers of two versions over one Redis, as during a rolling update.

The newer version is a copy of the source with the next format of records.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis import Redis

import joker
from joker.jobs import broker
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.job import Job, State

if TYPE_CHECKING:
    from tests.conftest import RedisServer
    from tests.jobs.conftest import MakeRequest

pytestmark = [pytest.mark.anyio, pytest.mark.integration]

WORKER = Path(__file__).with_name("stub.py")
JOBS = 30
DEADLINE_SECONDS = 300
SUBMIT = """
import asyncio, sys
from joker.generation.request import GenerationRequest
from joker.jobs.celery_redis import CeleryRedisQueue

async def submit(url, jobs, prompt):
    queue = CeleryRedisQueue(url, deadline_seconds=300)
    for seed in range(int(jobs)):
        request = GenerationRequest(prompt, seed=seed, safe=False, candidates=1)
        print((await queue.submit(request)).id)
    await queue.close()

asyncio.run(submit(*sys.argv[1:]))
"""


class Update:
    """Workers and servers of two versions over one Redis."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._newer = folder / "src"
        source = Path(joker.__file__).parent
        shutil.copytree(source, self._newer / "joker", ignore=shutil.ignore_patterns("models"))
        module = self._newer / "joker" / "jobs" / "broker.py"
        text, changes = re.subn(
            "^VERSION = .*$", f"VERSION = {broker.VERSION + 1}", module.read_text(), flags=re.M
        )
        assert changes == 1
        module.write_text(text)

    def start_worker(self, name: str, *, newer: bool, lease_seconds: float = 2) -> None:
        command = [sys.executable, str(WORKER), self.url, "4", str(lease_seconds)]
        with (self._folder / name).open("wb") as log:
            self._processes.append(
                subprocess.Popen(command, stdout=log, stderr=log, env=self._environment(newer))
            )

    def kill_last_worker(self) -> None:
        self._processes[-1].kill()
        self._processes[-1].wait()

    def submit_newer(self, jobs: int, prompt: str = "") -> list[str]:
        """Submit jobs as a newer server does and return their ids."""
        command = [sys.executable, "-c", SUBMIT, self.url, str(jobs), prompt]
        return subprocess.check_output(command, text=True, env=self._environment(True)).split()

    def told_by(self, name: str) -> set[str]:
        """Return the jobs that a worker told, by its own log."""
        log = (self._folder / name).read_text()
        return set(re.findall(r'"task_id": "([^"]+)".*"outcome": "told"', log))

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(60)

    def _environment(self, newer: bool) -> dict[str, str]:
        path = os.pathsep.join(sys.path)
        return os.environ | {"PYTHONPATH": f"{self._newer}{os.pathsep}{path}" if newer else path}


@pytest.fixture
def update(tmp_path: Path, start_redis: Callable[[], RedisServer]) -> Iterator[Update]:
    update = Update(tmp_path, start_redis().url)
    yield update
    update.stop()


@pytest.fixture
async def queue(update: Update) -> AsyncIterator[CeleryRedisQueue]:
    queue = CeleryRedisQueue(update.url, deadline_seconds=DEADLINE_SECONDS)
    yield queue
    await queue.close()


async def wait_for(queue: CeleryRedisQueue, ids: list[str]) -> list[Job]:
    return await asyncio.gather(*(queue.wait(job_id, DEADLINE_SECONDS) for job_id in ids))


async def test_two_versions_work_on_one_queue_and_each_job_is_told_once(
    update: Update, queue: CeleryRedisQueue, make_request: MakeRequest
) -> None:
    update.start_worker("older", newer=False)
    update.start_worker("newer", newer=True)
    while (await queue.stats()).workers < 2:
        await asyncio.sleep(0.1)
    newer = await asyncio.to_thread(update.submit_newer, JOBS)
    older = [(await queue.submit(make_request(seed=seed))).id for seed in range(JOBS)]
    done = await wait_for(queue, older + newer)
    assert {(job.state, job.attempts) for job in done} == {(State.SUCCESS, 1)}
    by_older, by_newer = update.told_by("older"), update.told_by("newer")
    assert not by_older & by_newer
    assert by_older | by_newer == {*older, *newer}
    assert by_older <= {*older}


async def test_a_newer_job_of_a_killed_worker_is_told_by_another_newer_one(
    update: Update, queue: CeleryRedisQueue, gate: Path
) -> None:
    update.start_worker("older", newer=False)
    update.start_worker("newer", newer=True)
    (job_id,) = await asyncio.to_thread(update.submit_newer, 1, f"after {gate}")
    while (await queue.get(job_id)).state is not State.STARTED:
        await asyncio.sleep(0.05)
    update.kill_last_worker()
    gate.touch()
    update.start_worker("next", newer=True)
    (done,) = await wait_for(queue, [job_id])
    assert (done.state, done.attempts) == (State.SUCCESS, 2)
    assert update.told_by("next") == {job_id}


async def test_jobs_of_older_servers_reach_newer_workers_at_once(
    update: Update, queue: CeleryRedisQueue, make_request: MakeRequest
) -> None:
    update.start_worker("newer", newer=True, lease_seconds=DEADLINE_SECONDS)
    job = await queue.submit(make_request())
    (done,) = await wait_for(queue, [job.id])
    assert (done.state, done.attempts) == (State.SUCCESS, 1)


async def test_an_older_server_does_not_ask_for_a_late_newer_job_all_the_time(
    update: Update, queue: CeleryRedisQueue
) -> None:
    (job_id,) = await asyncio.to_thread(update.submit_newer, 1)
    with Redis.from_url(update.url) as redis:
        redis.eval(
            "local record = cmsgpack.unpack(redis.call('GET', KEYS[1])) "
            "record.deadline_at = record.created_at "
            "redis.call('SET', KEYS[1], cmsgpack.pack(record))",
            1,
            f"{{joker}}:job:{job_id}",
        )
        before = redis.info("commandstats")["cmdstat_fcall"]["calls"]
        assert (await queue.wait(job_id, 2)).state is State.PENDING
        assert redis.info("commandstats")["cmdstat_fcall"]["calls"] - before < 10


async def test_older_workers_do_not_keep_newer_ones_from_sweeping(
    update: Update, queue: CeleryRedisQueue
) -> None:
    (job_id,) = await asyncio.to_thread(update.submit_newer, 1)
    newer = broker.LIBRARY.replace(f"= {broker.VERSION},", f"= {broker.VERSION + 1},", 1)
    newer = newer.replace(broker.MESSAGES, "{joker}:messages:none")
    newer = newer.replace(broker.FUNCTION, "newer")
    await asyncio.sleep(0.2)
    with Redis.from_url(update.url, decode_responses=True) as redis:
        for library in (broker.LIBRARY, newer):
            redis.function_load(library, replace=True)
        for function, found in ((broker.FUNCTION, []), ("newer", [job_id])):
            assert redis.fcall(function, 1, broker.SLOT_KEY, "sweep", 60, 0.1) == found
