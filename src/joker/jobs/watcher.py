"""Watches the jobs that a server's clients wait for.

Redis publishes changes of a server's jobs on one channel, so one connection serves any number of
clients without polling. Messages that could not be delivered are lost; so everything is read again
after the connection was lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from joker.core.errors import QueueStoppedError
from joker.jobs.broker import read_record, server_channel
from joker.jobs.job import Job, PartialEvent

# A connection that is silent for this long gets a ping, and is closed if it stays silent.
_SILENT_SECONDS = 5.0
# Without a connection, watched jobs are polled at this interval.
_PAUSE_SECONDS = 0.5
# Jobs are read this long after their deadline.
_SLACK_SECONDS = 0.01
# A job that was expected is forgotten if nobody follows it by then.
_EXPECTED_SECONDS = 1.0

_log = logging.getLogger(__name__)

Read = Callable[[str, bool], Awaitable[tuple[Job, float]]]
"""Reads a job, registers this server for its changes, and for its drafts if the second argument is
true; returns the job and the seconds to its deadline."""


@dataclass(slots=True, eq=False)
class WatchedJob:
    """A job that is watched.

    Attributes:
        job: The job as last read or received.
        draft: The last partial text, with its attempt.
        drafts: Whether a follower reads partial text.
        stale: Whether the job must be read again.
        due: When the job's deadline has passed, in the event loop's time.
    """

    job: Job | None = None
    draft: tuple[int, PartialEvent] | None = None
    drafts: bool = False
    stale: bool = True
    due: float = 0.0
    followers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def update(self, job: Job) -> None:
        """Keep the job's new state, unless a newer one is known."""
        if self.job is None or job.position >= self.job.position:
            self.job = job

    def learn(self, job: Job, left_seconds: float) -> None:
        """Keep the job as it was read, with so much time until its deadline."""
        self.due = asyncio.get_running_loop().time() + left_seconds + _SLACK_SECONDS
        self.update(job)

    def wake(self) -> None:
        """Wake all followers."""
        self.changed.set()
        self.changed = asyncio.Event()


class JobWatcher:
    """Watches jobs for one server.

    Args:
        redis: A client that does not reconnect by itself, so that missed changes are read.
        name: Names this server's channel.
        read: See `Read`.
    """

    def __init__(self, redis: Redis, name: str, read: Read) -> None:
        self._redis = redis
        self._channel = server_channel(name)
        self._read = read
        self._jobs: dict[str, WatchedJob] = {}
        self._listening = asyncio.Event()
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    async def follow(self, job_id: str, *, drafts: bool = False) -> AsyncIterator[WatchedJob]:
        """Yield a job, at first and after every change, until it is final.

        Args:
            job_id: The job.
            drafts: Have its workers send partial text.

        Raises:
            QueueStoppedError: After `stop`.
            QueueError: What reading the job raises.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._listen())
        if not self._listening.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE_SECONDS):
                    await self._listening.wait()
        watched = self._jobs.setdefault(job_id, WatchedJob())
        watched.followers += 1
        if drafts and not watched.drafts:
            watched.drafts = watched.stale = True
        try:
            while True:
                changed = watched.changed
                await self._refresh(job_id, watched)
                # The final state may arrive while the follower is busy with this one.
                shown = watched.job
                yield watched
                if shown and shown.state.final:
                    return
                await self._wait(watched, changed)
                if self._stopped:
                    raise QueueStoppedError
        finally:
            self._leave(job_id, watched)

    def expect(self, job_id: str) -> WatchedJob:
        """Hear of a job that is about to be submitted by this server.

        Who follows it soon need not read it, if the watched job has learned the job's first state.
        """
        watched = self._jobs[job_id] = WatchedJob(followers=1, stale=not self._listening.is_set())
        asyncio.get_running_loop().call_later(_EXPECTED_SECONDS, self._leave, job_id, watched)
        return watched

    def _leave(self, job_id: str, watched: WatchedJob) -> None:
        watched.followers -= 1
        if not watched.followers:
            del self._jobs[job_id]

    def stop(self) -> None:
        """End all following, now and later."""
        self._stopped = True
        for watched in self._jobs.values():
            watched.wake()

    async def close(self) -> None:
        """Stop listening."""
        self.stop()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._redis.aclose()

    async def _refresh(self, job_id: str, watched: WatchedJob) -> None:
        """Read a stale job; only one of several followers does."""
        async with watched.reading:
            if watched.stale or watched.job is None:
                # A lost connection during the read makes it stale again.
                watched.stale = False
                try:
                    job, left_seconds = await self._read(job_id, watched.drafts)
                except BaseException:
                    watched.stale = True
                    raise
                watched.learn(job, left_seconds)

    async def _wait(self, watched: WatchedJob, changed: asyncio.Event) -> None:
        """Return after a change, at the job's deadline, or soon if there is no connection."""
        if self._stopped:
            return
        seconds = max(0.0, watched.due - asyncio.get_running_loop().time())
        if not self._listening.is_set():
            seconds = min(seconds, _PAUSE_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            watched.stale = True

    async def _listen(self) -> None:
        # A cancellation may be lost: asyncio.wait_for, by which redis-py sends, drops it in Python
        # 3.11 if what it waits for is done at that moment.
        while not self._stopped:
            try:
                await self._listen_once()
            except Exception as error:  # Without this task, followers would get no more changes.
                _log.warning("lost the channel of the jobs that are watched: %s", error)
            self._listening.clear()
            self._mark_stale()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _listen_once(self) -> None:
        """Listen until the connection is lost.

        Raises:
            RedisError: When it is.
            ValueError: If a message cannot be read.
        """
        async with self._redis.pubsub() as channel:
            await channel.subscribe(self._channel)
            silent = False
            while not self._stopped:
                message = await channel.get_message(timeout=_SILENT_SECONDS)
                if message is None:
                    if silent:
                        raise RedisConnectionError("it does not answer")
                    await channel.ping()
                elif message["type"] == "subscribe":
                    self._listening.set()
                    self._mark_stale()
                elif message["type"] == "message":
                    self._receive(message["data"])
                silent = message is None

    def _mark_stale(self) -> None:
        for watched in self._jobs.values():
            watched.stale = True
            watched.wake()

    def _receive(self, message: str) -> None:
        job_id, kind, data = message.split(" ", 2)
        watched = self._jobs.get(job_id)
        if watched is None:
            return
        if kind == "record":
            watched.update(read_record(data))
        elif kind == "partial":
            part = json.loads(data)
            watched.draft = part["attempt"], PartialEvent(**part["event"])
        watched.wake()
