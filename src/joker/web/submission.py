"""Submission: all routes submit their requests for jokes here.

Checks, in this order: the limits of a request, the client's rate limit, a free place in the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import NamedTuple

from anyio import CancelScope
from fastapi import Request
from starlette.exceptions import HTTPException

from joker.core.errors import (
    GenerationError,
    InputError,
    MemoryFullError,
    PromptWithheldError,
    QueueError,
    QueueFullError,
)
from joker.core.joke import GeneratedJoke
from joker.core.plural import plural
from joker.generation.moderation import Moderator
from joker.generation.prompt import Prompt
from joker.generation.request import GenerationRequest
from joker.jobs.job import Job, State
from joker.jobs.queue import JobQueue
from joker.settings import Settings
from joker.web.archive import Archive
from joker.web.limits import RateLimiter
from joker.web.metrics import JobFollower
from joker.web.middleware import stop_at_head
from joker.web.schemas import JokeParameters, LinkedJoke, Task
from joker.web.security import identify_client

_GRACE_SECONDS = 2.0
_MAX_PROMPTS = 20  # as many as LangChain sends at once


def limits_of(settings: Settings) -> dict[str, float]:
    """Return the server's maximum for each limited field of a request."""
    return {
        "prompt": settings.max_prompt_characters,
        "count": settings.max_count,
        "candidates": settings.max_candidates,
        "max_new_tokens": settings.max_new_tokens,
        "deadline_seconds": settings.deadline_seconds,
    }


def max_prompts_of(settings: Settings) -> int:
    """Return the server's maximum number of prompts in a request; the queue must have room."""
    return min(_MAX_PROMPTS, settings.max_queue_size)


class Telling(NamedTuple):
    """Jokes that a client has asked for.

    Attributes:
        ready: Those that were in the pool.
        job: Tells the others; None if there are none.
    """

    ready: list[LinkedJoke]
    job: Job | None

    @property
    def jokes(self) -> list[GeneratedJoke]:
        """All jokes that have been told."""
        return [*self.ready, *(self.job.jokes if self.job else ())]


def check_told(job: Job) -> None:
    """Check that a job has told its jokes.

    Raises:
        GenerationError: If no acceptable joke was found for this request.
        HTTPException: If the jokes are not told for another reason: 502 with the reason, 503
            if the job was revoked, 504 if it did not end in time.
    """
    if job.refused:
        raise GenerationError(job.error)
    if job.state is State.FAILURE:
        raise HTTPException(502, job.error)
    if job.state is State.REVOKED:
        raise HTTPException(503, "the joke was cancelled; ask again")
    if job.state is not State.SUCCESS:
        raise HTTPException(504, "no joke in time; try again later, or ask for fewer")


def jobs_of(tellings: Iterable[Telling]) -> list[Job]:
    """Return the jobs of those that have one."""
    return [telling.job for telling in tellings if telling.job]


class Submission:
    """Submits requests for jokes, and waits for the jokes.

    Args:
        queue: Where jobs wait.
        follower: Follows jobs.
        archive: Stores the jokes that `tell` waits for.
        moderator: Knows prompts on which no joke can pass.
        limiter: Limits each client's jokes; None does not.
        settings: Limits of requests, and the deadline.
    """

    def __init__(
        self,
        queue: JobQueue,
        follower: JobFollower,
        archive: Archive,
        moderator: Moderator,
        limiter: RateLimiter | None,
        settings: Settings,
    ) -> None:
        self._queue = queue
        self._follower = follower
        self._archive = archive
        self._moderator = moderator
        self._limiter = limiter
        self._settings = settings

    async def submit(
        self, request: Request, asked: GenerationRequest, key: str | None = None
    ) -> Job:
        """Submit a request for jokes.

        Args:
            request: The HTTP request.
            asked: The request for jokes.
            key: The same key and request again give the same job.

        Raises:
            InputError: If more is asked for than the settings allow.
            HTTPException: 429 if the client has reached its limit.
            QueueError: If the queue refuses it.
        """
        _check_limits(asked, self._settings)
        await self._charge(request, asked.count)
        return await self._enqueue(request, asked, key)

    async def begin(
        self, request: Request, wanted: Sequence[GenerationRequest], *, plain: bool
    ) -> list[Telling]:
        """Take jokes from the pool, and submit requests for those that it lacks.

        Args:
            request: The HTTP request.
            wanted: The requests for jokes, one for each prompt.
            plain: Whether nothing says how jokes are to be made. Then a request gets the best of
                the pool that fit its prompt and that the client has not had.

        Raises:
            InputError, HTTPException, QueueError: As `submit` does.
            PromptWithheldError: If moderation withholds a prompt itself.
            HeadError: If the request is HEAD, which takes no joke.
        """
        for asked in wanted:
            _check_limits(asked, self._settings)
        if len(wanted) > (most := max_prompts_of(self._settings)):
            raise InputError(
                f"at most {most} {plural(most, 'prompt')} in a request; split them into several"
            )
        if any(map(self._withholds, wanted)):
            raise PromptWithheldError
        stop_at_head(request)
        await self._charge(request, sum(asked.count for asked in wanted))
        begun: list[Telling] = []
        try:
            for asked in wanted:
                one = await self._begin(request, asked, plain=plain)
                begun.append(one)  # if the next one fails, this one is known
        except BaseException:
            await self.abandon(*jobs_of(begun))
            raise
        return begun

    def _withholds(self, asked: GenerationRequest) -> bool:
        return self._moderator.withholds_prompt(
            Prompt.parse(asked.prompt).text,
            safe=asked.safe,
            exclude_categories=asked.exclude_categories,
        )

    async def _begin(self, request: Request, asked: GenerationRequest, *, plain: bool) -> Telling:
        ready: list[LinkedJoke] = []
        if plain:
            taken = await self._archive.take_from_pool(identify_client(request), asked)
            ready = list(map(LinkedJoke.of_pool, taken))
        if len(ready) == asked.count:
            return Telling(ready, None)
        missing = replace(asked, count=asked.count - len(ready))
        return Telling(ready, await self._enqueue(request, missing))

    async def answer(self, request: Request, parameters: JokeParameters) -> Task:
        """Return the jokes that parameters ask for, told and stored.

        If nothing says how they are to be made, those of the pool come first, as `begin` says.

        Raises:
            GenerationError, HTTPException: As `tell` does.
        """
        asked = parameters.to_request(self._settings)
        (telling,) = await self.tell(request, [asked], plain=parameters.is_plain)
        return await self._archive.describe(telling.job, telling.ready)

    async def tell(
        self, request: Request, wanted: Sequence[GenerationRequest], *, plain: bool
    ) -> list[Telling]:
        """Begin as `begin` does, and wait until all jokes are told and stored.

        If the client disconnects, or one of several jobs fails, the others are cancelled.

        Raises:
            GenerationError, HTTPException: As `check_told` does.
        """
        tellings = await self.begin(request, wanted, plain=plain)
        unfinished = jobs_of(tellings)
        gone = asyncio.ensure_future(_until_gone(request))
        try:
            for number, telling in enumerate(tellings):
                if telling.job:
                    job = await self._finish(telling.job, gone)
                    unfinished.remove(telling.job)
                    tellings[number] = telling._replace(job=job)
        finally:
            gone.cancel()
            await self.abandon(*unfinished)
        return tellings

    async def _finish(self, job: Job, gone: asyncio.Task[None]) -> Job:
        """Return a job once its jokes are told and stored."""
        waiting = asyncio.ensure_future(
            self._queue.wait(job.id, self._settings.deadline_seconds + _GRACE_SECONDS)
        )
        try:
            await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise HTTPException(408, "the client disconnected before the joke was told")
            job = await waiting
        finally:
            waiting.cancel()
        check_told(job)
        await self._archive.link(job, job.jokes)
        return job

    async def _enqueue(
        self, request: Request, asked: GenerationRequest, key: str | None = None
    ) -> Job:
        try:
            job = await self._queue.submit(asked, key=key, request_id=request.state.request_id)
        except QueueFullError as error:
            memory_full = isinstance(error, MemoryFullError)
            self._follower.count_refusal("memory_full" if memory_full else "queue_full")
            raise
        request.state.task_id = job.id
        self._follower.follow(job)
        return job

    async def _charge(self, request: Request, jokes: int) -> None:
        """Count jokes towards the client's rate limit."""
        if self._limiter:
            try:
                client = identify_client(request)
                request.state.headers |= await self._limiter.take(client, jokes)
            except HTTPException:
                self._follower.count_refusal("rate_limited")
                raise

    async def abandon(self, *jobs: Job) -> None:
        """Cancel jobs that nobody waits for any more, even while their request is cancelled.

        A job that has ended, such as the failed one of several, stays as it is, and a job that
        cannot be cancelled now ends at its deadline.
        """
        with CancelScope(shield=True):
            for job in jobs:
                with suppress(QueueError):
                    await self._queue.cancel(job.id)


def _check_limits(asked: GenerationRequest, settings: Settings) -> None:
    amounts = asdict(asked) | {
        "prompt": len(asked.prompt),
        "max_new_tokens": asked.sampling.max_new_tokens,
        "deadline_seconds": asked.deadline_seconds or 0,
    }
    labels = {"prompt": "characters in prompt", "count": "jokes (n)"}
    for name, most in limits_of(settings).items():
        if amounts[name] > most:
            raise InputError(f"{labels.get(name, name)}: at most {most:.9g}; ask for less")


async def _until_gone(request: Request) -> None:
    """Return once the client has disconnected; its body has been read already."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
