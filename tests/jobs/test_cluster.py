"""Nodes of a Redis Cluster: one of them has the queue; the contract suite runs on it, too."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from joker.core.errors import QueueDownError
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.job import State
from joker.jobs.leases import Leases
from joker.web.limits import RateLimiter
from tests.jobs.leases.support import LEASE_SECONDS, tell

if TYPE_CHECKING:
    from tests.jobs.conftest import MakeRequest, StartCluster

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@pytest.mark.parametrize("program", ["redis-server", "valkey-server"])
async def test_one_node_has_the_whole_queue_and_the_others_say_which(
    program: str, start_cluster: StartCluster, make_request: MakeRequest
) -> None:
    first, other = start_cluster(program)
    queue = CeleryRedisQueue(first.url)
    job = await queue.submit(make_request())
    lost = Leases(first.url, lease_seconds=LEASE_SECONDS)
    assert lost._call("claim", job.id, "lease", LEASE_SECONDS)
    lost.close()
    with Leases(first.url, lease_seconds=LEASE_SECONDS) as leases:
        until = time.monotonic() + 60
        while (await queue.get(job.id)).state is not State.PENDING:
            assert time.monotonic() < until, "the lost job is not swept"
        leases.work_on(job.id, tell)
    assert (await queue.get(job.id)).state is State.SUCCESS
    await queue.close()

    limiter = RateLimiter("3/hour", first.url)
    assert "r=1;" in (await limiter.take("client", 2))["RateLimit"]
    await limiter.close()

    misplaced = CeleryRedisQueue(other.url)
    named = f"none of the queue's keys.* {urlsplit(first.url).netloc}"
    with pytest.raises(QueueDownError, match=named):
        await misplaced.submit(make_request())
    with pytest.raises(QueueDownError, match=named), Leases(other.url, lease_seconds=1):
        pass
    await misplaced.close()
