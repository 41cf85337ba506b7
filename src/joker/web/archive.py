"""The archive: every joke that this server returns is stored first, and gets an id and a link.

The first request that returns a job's joke stores it. Its key in the store is derived from the job
and the joke, so it is stored once and has one id in all processes.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any

from joker.core.joke import GeneratedJoke
from joker.generation.moderation import Moderator
from joker.generation.request import GenerationRequest
from joker.jobs.job import Job
from joker.store import Store, StoredJoke
from joker.web.schemas import LinkedJoke, Task

_REMEMBERED = 10_000


class Archive:
    """Stores jokes before they are returned.

    Args:
        store: Where they are stored.
        moderator: Flags offensive jokes, which lists leave out.
        model: Name of the model that tells them.
        has_pool: Whether jokes are taken from the store's pool.
    """

    def __init__(
        self, store: Store, moderator: Moderator, model: str, *, has_pool: bool = True
    ) -> None:
        self._store = store
        self._has_pool = has_pool
        self._moderator = moderator
        self._model = model
        self._ids: dict[str, str] = {}

    async def describe(self, job: Job | None, ready: Sequence[LinkedJoke] = ()) -> Task:
        """Return a job as its client sees it, with its jokes stored, behind those of the pool."""
        if job is None:
            return Task.of_pool(list(ready))
        return Task.of(job, [*ready, *await self.link(job, job.jokes)])

    async def link(self, job: Job, jokes: Iterable[GeneratedJoke]) -> list[LinkedJoke]:
        """Return jokes of a job with their ids, stored; without, if the store is down."""
        return [await self._link(job, joke) for joke in jokes]

    async def _link(self, job: Job, joke: GeneratedJoke) -> LinkedJoke:
        flags, safe = self._moderator.label(str(joke))
        joke_id = await self._keep(job, joke)
        return LinkedJoke.of(joke, joke_id, self._model, flags, safe=safe)

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
        described = self._describe(joke)
        described["quality"] = -inf if joke.score is None else joke.score
        add = functools.partial(self._store.pool.add, joke, **described)
        return await asyncio.to_thread(add) is not None

    async def take_from_pool(
        self, client: str, asked: GenerationRequest | None = None
    ) -> list[StoredJoke]:
        """Return the best jokes of the pool that a client has not had, up to the number asked for.

        Prompt and sampling are ignored. The client never gets the same jokes again. Without a
        request, it is one joke.
        """
        asked = asked or GenerationRequest()
        if not self._has_pool:
            return []
        return await asyncio.to_thread(
            self._store.pool.take_several,
            client,
            asked.count,
            safe=asked.safe,
            exclude_categories=asked.exclude_categories,
        )

    def _add(self, job: Job, joke: GeneratedJoke, key: str) -> str | None:
        stored = self._store.add(joke, prompt=job.request.prompt, key=key, **self._describe(joke))
        return stored.id if stored else None

    def _describe(self, joke: GeneratedJoke) -> dict[str, Any]:
        """Return what the store keeps with a joke: its model and what moderation says."""
        return {"model": self._model, **self._moderator.label(str(joke))._asdict()}
