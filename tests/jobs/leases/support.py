"""What tests of leases share: work, waiting, and records of another version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from redis import Redis

from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.jobs.job import Job
from joker.jobs.leases import Leases

LEASE_SECONDS = 0.5
JOKE = GeneratedJoke("What waits?", "A test.", 7, 1)
MakeLeases = Callable[..., Leases]
Fetch = Callable[[], list[str]]


def tell(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
    return [JOKE]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + 50
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def change_record(url: str, job: Job, change: str) -> object:
    """Change a job's record as a newer version could, and return what it says of its mood."""
    with Redis.from_url(url) as redis:
        return redis.eval(
            f"""
            local record = cmsgpack.unpack(redis.call('GET', KEYS[1]))
            {change}
            redis.call('SET', KEYS[1], cmsgpack.pack(record), 'KEEPTTL')
            return record.mood
            """,
            1,
            f"{{joker}}:job:{job.id}",
        )
