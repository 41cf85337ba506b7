"""The archive: every joke that this server hands out is stored first, and gets an id and a link.

A job's joke is stored by whoever hands it out first: the request that waits for it, a stream that
follows it, or one that comes back for it. Its key in the store follows from the job and the joke,
so it is stored once and has one id, whichever of several processes hands it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from joker.core.joke import GeneratedJoke
from joker.generation.moderation import Moderator
from joker.jobs.job import Job
from joker.store import Store
from joker.web.schemas import LinkedJoke, Task

_REMEMBERED = 10_000


class Archive:
    """Stores jokes as they are handed out.

    Args:
        store: Where to.
        moderator: Says what is offensive, for lists of jokes.
        model: Name of the model that tells them.
    """

    def __init__(self, store: Store, moderator: Moderator, model: str) -> None:
        self._store = store
        self._moderator = moderator
        self._model = model
        self._ids: dict[str, str] = {}

    async def describe(self, job: Job) -> Task:
        """Return a job as its client sees it, with its jokes stored."""
        return Task.of(job, await self.link(job, job.jokes))

    async def link(self, job: Job, jokes: Iterable[GeneratedJoke]) -> list[LinkedJoke]:
        """Return jokes of a job with their ids, stored; without, if the store is away."""
        return [
            LinkedJoke.of(joke, self._ids.get(_key(job, joke)) or await self._keep(job, joke))
            for joke in jokes
        ]

    async def _keep(self, job: Job, joke: GeneratedJoke) -> str | None:
        return await asyncio.to_thread(self._add, job, joke)

    async def add_to_pool(self, joke: GeneratedJoke) -> None:
        """Put a joke that nobody asked for into the pool; without effect if the store is away."""
        await asyncio.to_thread(lambda: self._store.pool.add(joke, **self._describe(joke)))

    def _describe(self, joke: GeneratedJoke) -> dict[str, Any]:
        """Return what the store keeps with a joke: its model and what moderation says."""
        flags = self._moderator.check(f"{joke.question}\n{joke.answer}")
        return {
            "model": self._model,
            "categories": sorted({flag.category for flag in flags}),
            "safe": all(flag.severity != "offensive" for flag in flags),
        }

    def _add(self, job: Job, joke: GeneratedJoke) -> str | None:
        key = _key(job, joke)
        stored = self._store.add(joke, prompt=job.request.prompt, key=key, **self._describe(joke))
        if stored is None:
            return None
        while len(self._ids) >= _REMEMBERED:
            self._ids.pop(next(iter(self._ids)), None)
        self._ids[key] = stored.id
        return stored.id


def _key(job: Job, joke: GeneratedJoke) -> str:
    # A job that is begun again may tell another joke in the same place.
    return f"{job.id} {joke.question} {joke.answer}"
