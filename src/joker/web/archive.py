"""The archive: every joke that this server returns is stored first, and gets an id and a link.

The first request that returns a job's joke stores it. Its key in the store is derived from the job
and the joke, so it is stored once and has one id in all processes.

The pool filler drafts jokes for the archive while nobody waits for one.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import Any

from joker.compose import model_name
from joker.core.errors import QueueError, StoreDownError
from joker.core.joke import GeneratedJoke
from joker.generation.moderation import Moderator
from joker.generation.request import GenerationRequest
from joker.jobs.job import Job
from joker.jobs.queue import JobQueue
from joker.settings import Settings
from joker.store import Store, StoredJoke
from joker.web.schemas import LinkedJoke, Task

_REMEMBERED = 10_000
_PAUSE_SECONDS = 1.0
_REST_SECONDS = 60.0
_PRUNE_SECONDS = 3600.0

_log = logging.getLogger(__name__)


class Archive:
    """Stores jokes before they are returned.

    Args:
        store: Where they are stored.
        moderator: Flags offensive jokes, which lists leave out.
        settings: Say which model tells the jokes, and whether they are taken from its pool.
    """

    def __init__(self, store: Store, moderator: Moderator, settings: Settings) -> None:
        self._store = store
        # A job is read many times, but the labels of its jokes never change.
        self._label = functools.lru_cache(_REMEMBERED)(moderator.label)
        self._settings = settings
        self._ids: dict[str, str] = {}

    async def prune_hourly(self) -> None:
        """Apply the store's limits for as long as the server lives, even if it tells no joke."""
        while True:
            await asyncio.sleep(_PRUNE_SECONDS)
            with suppress(StoreDownError):
                await asyncio.to_thread(self._store.prune)

    async def describe(self, job: Job | None, ready: Sequence[LinkedJoke] = ()) -> Task:
        """Return a job as its client sees it, with its jokes stored, behind those of the pool."""
        if job is None:
            return Task.of_pool(list(ready))
        return Task.of(job, [*ready, *await self.link(job, job.jokes)])

    async def link(self, job: Job, jokes: Iterable[GeneratedJoke]) -> list[LinkedJoke]:
        """Return jokes of a job with their ids, stored; without, if the store is down."""
        return [await self._link(job, self._named(joke)) for joke in jokes]

    async def _link(self, job: Job, joke: GeneratedJoke) -> LinkedJoke:
        flags, safe = self._label(str(joke))
        joke_id = await self._keep(job, joke)
        return LinkedJoke.of(joke, joke_id, flags, safe=safe)

    async def _keep(self, job: Job, joke: GeneratedJoke) -> str | None:
        # A job that is begun again may tell another joke in the same place.
        key = f"{job.id} {joke.question} {joke.answer}"
        if key in self._ids:
            return self._ids[key]
        joke_id = await asyncio.to_thread(self._add, job, joke, key)
        if joke_id is not None:
            if len(self._ids) >= _REMEMBERED:
                del self._ids[next(iter(self._ids))]
            self._ids[key] = joke_id
        return joke_id

    async def add_to_pool(self, joke: GeneratedJoke) -> bool:
        """Put a joke that nobody asked for into the pool; return whether it was taken in."""
        described = self._describe(self._named(joke))
        described["quality"] = -inf if joke.score is None else joke.score
        add = functools.partial(self._store.pool.add, joke, **described)
        return await asyncio.to_thread(add) is not None

    async def count_untold(self) -> int:
        """Return how many jokes of the pool nobody has heard."""
        model = model_name(self._settings)
        return await asyncio.to_thread(self._store.pool.size, untold=True, model=model)

    async def take_from_pool(
        self, client: str, asked: GenerationRequest | None = None
    ) -> list[StoredJoke]:
        """Return the best jokes of the pool that a client has not had, up to the number asked for.

        They fit the prompt; sampling is ignored. The client never gets the same jokes again.
        Without a request, it is one joke.
        """
        asked = asked or GenerationRequest()
        if not self._settings.pool_size:
            return []
        return await asyncio.to_thread(
            self._store.pool.take_several,
            client,
            asked.count,
            model=model_name(self._settings),
            prompt=asked.prompt,
            safe=asked.safe,
            exclude_categories=asked.exclude_categories,
        )

    def _add(self, job: Job, joke: GeneratedJoke, key: str) -> str | None:
        stored = self._store.add(joke, prompt=job.request.prompt, key=key, **self._describe(joke))
        return stored.id if stored else None

    def _named(self, joke: GeneratedJoke) -> GeneratedJoke:
        # Older workers do not say which model told a joke.
        return joke if joke.model else replace(joke, model=model_name(self._settings))

    def _describe(self, joke: GeneratedJoke) -> dict[str, Any]:
        """Return what the store keeps with a joke: its model and what moderation says."""
        return {"model": joke.model, **self._label(str(joke))._asdict()}


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
        untold = await self._archive.count_untold()
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
