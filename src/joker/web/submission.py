"""Submission: all routes that generate jokes submit their requests here.

It checks the limits of a request, then the client's rate limit, then the capacity of the queue.
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
    plural,
)
from joker.core.joke import GeneratedJoke
from joker.generation.moderation import Moderator
from joker.generation.prompt import Prompt
from joker.generation.request import GenerationRequest
from joker.jobs.job import Job, State
from joker.jobs.queue import JobQueue
from joker.settings import Settings
from joker.web.archive import Archive
from joker.web.limits import RateLimiter, identify_client
from joker.web.metrics import JobFollower
from joker.web.middleware import stop_at_head
from joker.web.schemas import JokeParameters, LinkedJoke, Task

_GRACE_SECONDS = 2.0  # to learn that a job has ended at its deadline
_MAX_PROMPTS = 20  # as many as LangChain sends at once


def request_limits(settings: Settings) -> dict[str, float]:
    """Return the server's maximum for each limited field of a request."""
    return {
        "prompt": settings.max_prompt_characters,
        "count": settings.max_count,
        "candidates": settings.max_candidates,
        "max_new_tokens": settings.max_new_tokens,
        "deadline_seconds": settings.deadline_seconds,
    }


def max_prompts(settings: Settings) -> int:
    """Return the server's maximum number of prompts per request; the queue needs room for all."""
    return min(_MAX_PROMPTS, settings.max_queue_size)


class JokeBatch(NamedTuple):
    """The jokes for one prompt.

    Attributes:
        ready: Jokes from the pool.
        job: Generates the remaining jokes; None if there are none.
    """

    ready: list[LinkedJoke]
    job: Job | None

    @property
    def jokes(self) -> list[GeneratedJoke]:
        """All jokes told so far."""
        return [*self.ready, *(self.job.jokes if self.job else ())]


def raise_for_state(job: Job) -> None:
    """Raise an error unless a job has told its jokes.

    Raises:
        GenerationError: If no acceptable joke was found for this request.
        HTTPException: 502 if the job failed for another reason, 503 if it was revoked, 504 if it
            did not end in time.
    """
    if job.refused:
        raise GenerationError(job.error)
    if job.state is State.FAILURE:
        raise HTTPException(502, job.error)
    if job.state is State.REVOKED:
        raise HTTPException(503, "the job was cancelled; try again")
    if job.state is not State.SUCCESS:
        raise HTTPException(504, "no joke in time; try again later, or ask for fewer")


def jobs_of(batches: Iterable[JokeBatch]) -> list[Job]:
    """Return the jobs of the batches that have one."""
    return [batch.job for batch in batches if batch.job]


class Submission:
    """Submits requests for jokes, and waits for the jokes.

    Args:
        queue: Runs the jobs.
        follower: Records the outcomes of jobs.
        archive: Stores jokes, and has the pool.
        moderator: Withholds prompts.
        limiter: The rate limit, if there is one.
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
        self, request: Request, joke_request: GenerationRequest, key: str | None = None
    ) -> Job:
        """Submit a request for jokes.

        Args:
            request: The HTTP request.
            joke_request: The request for jokes.
            key: Idempotency key: the same key and request give the same job.

        Raises:
            InputError: If the request exceeds the server's limits.
            HTTPException: 429 if the client has reached the rate limit.
            QueueError: If the queue rejects it.
        """
        _check_limits(joke_request, self._settings)
        await self._charge(request, joke_request.count)
        return await self._enqueue(request, joke_request, key)

    async def start(
        self, request: Request, joke_requests: Sequence[GenerationRequest], *, plain: bool
    ) -> list[JokeBatch]:
        """Take jokes from the pool, and submit a job for each request that needs more.

        Args:
            request: The HTTP request.
            joke_requests: The requests for jokes, one for each prompt.
            plain: Whether jokes of the pool can satisfy the requests.

        Raises:
            InputError, HTTPException, QueueError: As in `submit`.
            PromptWithheldError: If moderation withholds a prompt.
            HeadError: If the HTTP request is HEAD.
        """
        for joke_request in joke_requests:
            _check_limits(joke_request, self._settings)
        if len(joke_requests) > (maximum := max_prompts(self._settings)):
            raise InputError(
                f"at most {maximum} {plural(maximum, 'prompt')} in a request; "
                "split them into several"
            )
        if any(map(self._withholds, joke_requests)):
            raise PromptWithheldError
        stop_at_head(request)
        await self._charge(request, sum(joke_request.count for joke_request in joke_requests))
        batches: list[JokeBatch] = []
        try:
            # No comprehension: if one fails, the ones before are cancelled.
            for joke_request in joke_requests:
                batches.append(await self._start(request, joke_request, plain=plain))  # noqa: PERF401
        except BaseException:
            await self.abandon(*jobs_of(batches))
            raise
        return batches

    def _withholds(self, joke_request: GenerationRequest) -> bool:
        return self._moderator.withholds_prompt(
            Prompt.parse(joke_request.prompt).text,
            safe=joke_request.safe,
            exclude_categories=joke_request.exclude_categories,
        )

    async def _start(
        self, request: Request, joke_request: GenerationRequest, *, plain: bool
    ) -> JokeBatch:
        ready: list[LinkedJoke] = []
        if plain:
            taken = await self._archive.take_from_pool(identify_client(request), joke_request)
            ready = list(map(LinkedJoke.of_stored, taken))
        if len(ready) == joke_request.count:
            return JokeBatch(ready, None)
        missing = replace(joke_request, count=joke_request.count - len(ready))
        return JokeBatch(ready, await self._enqueue(request, missing))

    async def tell_task(self, request: Request, parameters: JokeParameters) -> Task:
        """Tell jokes as `tell` does, and return them as a task."""
        joke_request = parameters.to_request(self._settings)
        (batch,) = await self.tell(request, [joke_request], plain=parameters.is_plain)
        return await self._archive.to_task(batch.job, batch.ready)

    async def tell(
        self, request: Request, joke_requests: Sequence[GenerationRequest], *, plain: bool
    ) -> list[JokeBatch]:
        """Call `start`, and wait until all jokes are told and stored.

        If the client disconnects or a job fails, the other jobs are cancelled.

        Raises:
            GenerationError, HTTPException: As in `raise_for_state`.
        """
        batches = await self.start(request, joke_requests, plain=plain)
        unfinished = jobs_of(batches)
        disconnected = asyncio.ensure_future(_wait_for_disconnect(request))
        try:
            for number, batch in enumerate(batches):
                if batch.job:
                    job = await self._finish(batch.job, disconnected)
                    unfinished.remove(batch.job)
                    batches[number] = batch._replace(job=job)
        finally:
            disconnected.cancel()
            await self.abandon(*unfinished)
        return batches

    async def _finish(self, job: Job, disconnected: asyncio.Task[None]) -> Job:
        """Return a job once its jokes are told and stored."""
        finished = asyncio.ensure_future(
            self._queue.wait(job.id, self._settings.deadline_seconds + _GRACE_SECONDS)
        )
        try:
            await asyncio.wait({finished, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            if not finished.done():
                raise HTTPException(408, "the client disconnected before the joke was told")
            job = await finished
        finally:
            finished.cancel()
        raise_for_state(job)
        await self._archive.store(job, job.jokes)
        return job

    async def _enqueue(
        self, request: Request, joke_request: GenerationRequest, key: str | None = None
    ) -> Job:
        try:
            job = await self._queue.submit(
                joke_request, key=key, request_id=request.state.request_id
            )
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
        """Cancel jobs that nobody waits for any more, even if the HTTP request is cancelled.

        If the queue is down, they end at their deadlines.
        """
        with CancelScope(shield=True):
            for job in jobs:
                with suppress(QueueError):
                    await self._queue.cancel(job.id)


def _check_limits(joke_request: GenerationRequest, settings: Settings) -> None:
    amounts = asdict(joke_request) | {
        "prompt": len(joke_request.prompt),
        "max_new_tokens": joke_request.sampling.max_new_tokens,
        "deadline_seconds": joke_request.deadline_seconds or 0,
    }
    labels = {"prompt": "characters in prompt", "count": "jokes (n)"}
    for name, maximum in request_limits(settings).items():
        if amounts[name] > maximum:
            raise InputError(f"{labels.get(name, name)}: at most {maximum:.9g}; ask for less")


async def _wait_for_disconnect(request: Request) -> None:
    """Wait until the client disconnects; the request's body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
