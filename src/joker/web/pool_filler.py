"""The pool filler: jokes drafted while nobody waits for one."""

from __future__ import annotations

import asyncio
import logging

from joker.core.errors import QueueError
from joker.generation.request import GenerationRequest
from joker.jobs.queue import JobQueue
from joker.settings import Settings
from joker.store import Store
from joker.web.archive import Archive

_PAUSE_SECONDS = 1.0
_REST_SECONDS = 60.0

_log = logging.getLogger(__name__)


class PoolFiller:
    """Fills the pool with new jokes, one at a time.

    A new joke is the best of as many drafts as a request may ask for. Jokes that the model learned
    from are left out.

    Args:
        queue: Where jokes are generated; nothing is drafted while jobs wait or run there.
        store: Has the pool.
        archive: Puts jokes into it.
        settings: How many jokes wait in the pool, and how long jobs take.
    """

    def __init__(self, queue: JobQueue, store: Store, archive: Archive, settings: Settings) -> None:
        self._queue = queue
        self._store = store
        self._archive = archive
        self._settings = settings

    async def run(self) -> None:
        """Fill the pool for as long as the server lives."""
        pause_seconds = _PAUSE_SECONDS
        while True:
            await asyncio.sleep(pause_seconds)
            try:
                if await self._has_room() and await self._is_idle():
                    # A model that repeats itself is asked less and less often.
                    repeated = not await self._draft()
                    pause_seconds = (
                        min(2 * pause_seconds, _REST_SECONDS) if repeated else _PAUSE_SECONDS
                    )
            except QueueError as error:
                _log.debug("no joke was drafted for the pool: %s", error)
            except Exception:  # a filler that ends would leave the pool empty for good
                _log.exception("no joke was drafted for the pool")
                pause_seconds = _REST_SECONDS

    async def _has_room(self) -> bool:
        untold = await asyncio.to_thread(self._store.pool.size, untold=True)
        return not self._store.down and untold < self._settings.pool_size

    async def _is_idle(self) -> bool:
        stats = await self._queue.stats()
        return stats.workers > 0 and stats.waiting == stats.running == 0

    async def _draft(self) -> bool:
        """Draft a joke; return whether the pool took it in, or whether others need the engine."""
        request = GenerationRequest(candidates=self._settings.max_candidates, max_attempts=1)
        job = await self._queue.submit(request)
        while not job.state.final:
            job = await self._queue.wait(job.id, _PAUSE_SECONDS)
            stats = await self._queue.stats()
            if stats.waiting + stats.running > 1:  # somebody asked for a joke meanwhile
                await self._queue.cancel(job.id)
                return True
        jokes = [joke for joke in job.jokes if joke.original is not False]
        return any([await self._archive.add_to_pool(joke) for joke in jokes])
