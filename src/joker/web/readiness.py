"""Readiness: whether a joke asked for now would be told.

A joke told a short while ago proves it, whoever asked for it; where nobody did, the check asks
for one itself. So it costs a joke a minute at most, and none under load.
"""

from __future__ import annotations

import asyncio
import time

from joker.core.errors import QueueError
from joker.core.sampling import Sampling
from joker.jobs.job import JokeRequest, State
from joker.jobs.queue import JobQueue
from joker.web.errors import tell_client

_FRESH_SECONDS = 60.0
_QUEUE_SECONDS = 2.0
_PROBE_SECONDS = 10.0
_PROBE = JokeRequest(prompt="", count=1, sampling=Sampling(), seed=1, safe=False, candidates=1)


class Readiness:
    """Checks that jokes are told.

    Args:
        queue: Must answer, have a worker, and tell jokes.
    """

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    async def find_obstacle(self) -> str | None:
        """Return why a joke asked for now would not be told, in one sentence, or None."""
        try:
            async with asyncio.timeout(_QUEUE_SECONDS):
                load = await self._queue.load()
            if not load.workers:
                return "no worker is there to tell jokes; start one with 'joker worker'"
            if load.told_seconds_ago is not None and load.told_seconds_ago < _FRESH_SECONDS:
                return None
            return await self._probe()
        except QueueError as error:
            return tell_client(error)
        except TimeoutError:
            return f"the queue has not answered for {_QUEUE_SECONDS:g} seconds"

    async def _probe(self) -> str | None:
        # Checks that come together, from several processes too, share one joke.
        key = f"probe-{time.time() // _PROBE_SECONDS:.0f}"
        job = await self._queue.submit(_PROBE, key=key, request_id=key)
        job = await self._queue.wait(job.id, _PROBE_SECONDS)
        if job.state is State.SUCCESS:
            return None
        if not job.state.final:
            await self._queue.cancel(job.id)
            return f"no worker told a joke within {_PROBE_SECONDS:g} seconds"
        return job.error or "the joke that was to prove it was cancelled"
