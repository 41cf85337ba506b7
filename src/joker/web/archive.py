"""The archive: every joke that this server returns is stored first, and gets an id and a link.

The first request that returns a job's joke stores it. Its key in the store is derived from the job
and the joke, so it is stored once and has one id in all processes.

The pool filler generates jokes for the pool while the queue is idle.
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

_CACHE_SIZE = 10_000
_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 60.0
_PRUNE_SECONDS = 3600.0

_log = logging.getLogger(__name__)


class Archive:
    """Stores jokes before they are returned.

    Args:
        store: Where they are stored.
        moderator: Flags offensive jokes.
        settings: The model and the size of its pool.
    """

    def __init__(self, store: Store, moderator: Moderator, settings: Settings) -> None:
        self._store = store
        # A job may be read many times, but its jokes' labels never change.
        self._label = functools.lru_cache(_CACHE_SIZE)(moderator.label)
        self._settings = settings
        self._ids: dict[str, str] = {}

    async def prune_hourly(self) -> None:
        """Apply the store's limits every hour until cancelled, even if no joke is told."""
        while True:
            await asyncio.sleep(_PRUNE_SECONDS)
            with suppress(StoreDownError):
                await asyncio.to_thread(self._store.prune)

    async def to_task(self, job: Job | None, ready: Sequence[LinkedJoke] = ()) -> Task:
        """Store a job's jokes, and return it as its client sees it, after jokes from the pool."""
        if job is None:
            return Task.of_pool(list(ready))
        return Task.of(job, [*ready, *await self.store(job, job.jokes)])

    async def store(self, job: Job, jokes: Iterable[GeneratedJoke]) -> list[LinkedJoke]:
        """Store jokes of a job, and return them with their ids: None if the store is down."""
        linked = []
        for joke in map(self._with_model, jokes):
            flags, safe = self._label(str(joke))
            joke_id = await self._store_once(job, joke)
            linked.append(LinkedJoke.of(joke, joke_id, flags, safe=safe))
        return linked

    async def _store_once(self, job: Job, joke: GeneratedJoke) -> str | None:
        # Not its index: a job that is started again may tell a different joke there.
        key = f"{job.id} {joke.question} {joke.answer}"
        if key in self._ids:
            return self._ids[key]
        joke_id = await asyncio.to_thread(self._add, job, joke, key)
        if joke_id is not None:
            if len(self._ids) >= _CACHE_SIZE:
                del self._ids[next(iter(self._ids))]
            self._ids[key] = joke_id
        return joke_id

    async def add_to_pool(self, joke: GeneratedJoke) -> bool:
        """Add a joke to the pool; return whether the pool accepted it."""
        metadata = self._metadata(self._with_model(joke))
        quality = -inf if joke.score is None else joke.score
        add = functools.partial(self._store.pool.add, joke, quality=quality, **metadata)
        return await asyncio.to_thread(add) is not None

    async def count_untold(self) -> int:
        """Return the number of jokes in the pool that nobody has heard."""
        model = model_name(self._settings)
        return await asyncio.to_thread(self._store.pool.size, untold=True, model=model)

    async def take_from_pool(
        self, client: str, joke_request: GenerationRequest | None = None
    ) -> list[StoredJoke]:
        """Return the best jokes of the pool that match a request and that a client has not heard.

        They may be fewer than requested; sampling parameters are ignored.
        """
        joke_request = joke_request or GenerationRequest()
        if not self._settings.pool_size:
            return []
        return await asyncio.to_thread(
            self._store.pool.take_several,
            client,
            joke_request.count,
            model=model_name(self._settings),
            prompt=joke_request.prompt,
            safe=joke_request.safe,
            exclude_categories=joke_request.exclude_categories,
        )

    def _add(self, job: Job, joke: GeneratedJoke, key: str) -> str | None:
        stored = self._store.add(joke, prompt=job.request.prompt, key=key, **self._metadata(joke))
        return stored.id if stored else None

    def _with_model(self, joke: GeneratedJoke) -> GeneratedJoke:
        # Older workers do not set a joke's model.
        return joke if joke.model else replace(joke, model=model_name(self._settings))

    def _metadata(self, joke: GeneratedJoke) -> dict[str, Any]:
        """Return what is stored with a joke: its model and moderation labels."""
        return {"model": joke.model, **self._label(str(joke))._asdict()}


class PoolFiller:
    """Fills the pool with new jokes, one at a time, while the queue is idle.

    Each is the best of the maximum number of candidates. Jokes that the model has copied from its
    training data are left out.

    Args:
        queue: Generates the jokes.
        store: The store of the pool.
        archive: Adds jokes to the pool.
        settings: The size of the pool and the maximum number of candidates.
    """

    def __init__(self, queue: JobQueue, store: Store, archive: Archive, settings: Settings) -> None:
        self._queue = queue
        self._store = store
        self._archive = archive
        self._settings = settings

    async def run(self) -> None:
        """Fill the pool until cancelled."""
        pause_seconds = _PAUSE_SECONDS
        while True:
            await asyncio.sleep(pause_seconds)
            try:
                if await self._has_room() and await self._is_idle():
                    if await self._generate():
                        pause_seconds = _PAUSE_SECONDS
                    else:  # Back off: the model repeats itself.
                        pause_seconds = min(2 * pause_seconds, _MAX_PAUSE_SECONDS)
            except QueueError as error:
                _log.debug("no joke was generated for the pool: %s", error)
            except Exception:  # must not end the task, or the pool would stay empty
                _log.exception("no joke was generated for the pool")
                pause_seconds = _MAX_PAUSE_SECONDS

    async def _has_room(self) -> bool:
        untold = await self._archive.count_untold()
        return not self._store.down and untold < self._settings.pool_size

    async def _is_idle(self) -> bool:
        stats = await self._queue.stats()
        return stats.workers > 0 and stats.waiting == stats.running == 0

    async def _generate(self) -> bool:
        """Generate a joke; return whether the pool accepted it, or whether another job came in."""
        request = GenerationRequest(candidates=self._settings.max_candidates, max_attempts=1)
        job = await self._queue.submit(request)
        while not job.state.final:
            job = await self._queue.wait(job.id, _PAUSE_SECONDS)
            stats = await self._queue.stats()
            if stats.waiting + stats.running > 1:  # a client has submitted a job
                await self._queue.cancel(job.id)
                return True
        jokes = [joke for joke in job.jokes if joke.original is not False]
        return any([await self._archive.add_to_pool(joke) for joke in jokes])
