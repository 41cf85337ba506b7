"""Watches the jobs that a server's clients wait for.

Changes of a server's jobs arrive on one pub/sub channel, so one connection serves any number of
clients without polling. Redis does not keep undelivered messages, so all watched jobs are read
again after a lost connection.
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
from joker.jobs.broker import parse_record, server_channel
from joker.jobs.job import Job, PartialEvent

# A connection that is silent for this long is pinged, and closed if it stays silent.
_PING_SECONDS = 5.0
# Interval of attempts to reconnect; meanwhile, watched jobs are polled.
_POLL_SECONDS = 0.5
# A job is read again this long after its deadline.
_DEADLINE_SLACK_SECONDS = 0.01
# How long a newly submitted job is watched without followers.
_EXPECT_SECONDS = 1.0

_log = logging.getLogger(__name__)

Read = Callable[[str, bool], Awaitable[tuple[Job, float]]]
"""Reads a job and subscribes this server to its changes, including drafts if the second argument is
true; returns the job and the seconds until its deadline."""


@dataclass(slots=True, eq=False)
class WatchedJob:
    """A job that is watched.

    Attributes:
        job: The job as last read or received.
        draft: The last partial text, with its attempt.
        wants_drafts: Whether a follower reads partial text.
        stale: Whether the job must be read again.
        read_at: When the job must be read because of its deadline, in the event loop's time.
        followers: Number of followers.
        changed: Set at the next change.
        read_lock: Held while the job is read.
    """

    job: Job | None = None
    draft: tuple[int, PartialEvent] | None = None
    wants_drafts: bool = False
    stale: bool = True
    read_at: float = 0.0
    followers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    read_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def update(self, job: Job) -> None:
        """Set the job unless it is older than the present one."""
        if self.job is None or job.position >= self.job.position:
            self.job = job

    def set(self, job: Job, seconds_left: float) -> None:
        """Set the job and the time until its deadline."""
        self.read_at = asyncio.get_running_loop().time() + seconds_left + _DEADLINE_SLACK_SECONDS
        self.update(job)

    def wake(self) -> None:
        """Wake all followers."""
        self.changed.set()
        self.changed = asyncio.Event()


class JobWatcher:
    """Watches jobs for one server.

    Args:
        redis: A client that does not reconnect by itself: missed changes must be read first.
        name: The server's name, which names its channel.
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
        """Yield a job at first and after every change, until it is final.

        Args:
            job_id: The job.
            drafts: Whether to receive partial text.

        Raises:
            QueueStoppedError: After `stop`.
            QueueError: If the job cannot be read.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._listen())
        if not self._listening.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._listening.wait()
        watched = self._jobs.setdefault(job_id, WatchedJob())
        watched.followers += 1
        if drafts and not watched.wants_drafts:
            watched.wants_drafts = watched.stale = True
        try:
            while True:
                changed = watched.changed
                await self._refresh(job_id, watched)
                # Another state may arrive while the follower handles this one.
                yielded = watched.job
                yield watched
                if yielded and yielded.state.final:
                    return
                await self._wait(watched, changed)
                if self._stopped:
                    raise QueueStoppedError
        finally:
            self._unfollow(job_id, watched)

    def expect(self, job_id: str) -> WatchedJob:
        """Watch a job that this server is about to submit, so that followers need not read it.

        The caller sets the watched job once it is submitted.
        """
        watched = self._jobs[job_id] = WatchedJob(followers=1, stale=not self._listening.is_set())
        asyncio.get_running_loop().call_later(_EXPECT_SECONDS, self._unfollow, job_id, watched)
        return watched

    def _unfollow(self, job_id: str, watched: WatchedJob) -> None:
        watched.followers -= 1
        if not watched.followers:
            del self._jobs[job_id]

    def stop(self) -> None:
        """End all present and future calls of `follow`."""
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
        """Read the job if it is stale; one follower does so for all."""
        async with watched.read_lock:
            if watched.stale or watched.job is None:
                # A lost connection during the read makes it stale again.
                watched.stale = False
                try:
                    job, seconds_left = await self._read(job_id, watched.wants_drafts)
                except BaseException:
                    watched.stale = True
                    raise
                watched.set(job, seconds_left)

    async def _wait(self, watched: WatchedJob, changed: asyncio.Event) -> None:
        """Wait for a change or the deadline, but only briefly while disconnected."""
        if self._stopped:
            return
        seconds = max(0.0, watched.read_at - asyncio.get_running_loop().time())
        if not self._listening.is_set():
            seconds = min(seconds, _POLL_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            watched.stale = True

    async def _listen(self) -> None:
        # A cancellation may get lost: redis-py sends with asyncio.wait_for, which in Python 3.11
        # swallows a cancellation that arrives just as its awaitable finishes.
        while not self._stopped:
            try:
                await self._listen_once()
            except Exception as error:  # If this task ended, followers would get no changes.
                _log.warning("lost the pub/sub connection for watched jobs: %s", error)
            self._listening.clear()
            self._mark_stale()
            await asyncio.sleep(_POLL_SECONDS)

    async def _listen_once(self) -> None:
        """Handle messages until the connection is lost.

        Raises:
            RedisError: If the connection is lost.
            ValueError: If a message is malformed.
        """
        async with self._redis.pubsub() as channel:
            await channel.subscribe(self._channel)
            silent = False
            while not self._stopped:
                message = await channel.get_message(timeout=_PING_SECONDS)
                if message is None:
                    if silent:
                        raise RedisConnectionError("it does not answer")
                    await channel.ping()
                elif message["type"] == "subscribe":
                    self._listening.set()
                    self._mark_stale()
                elif message["type"] == "message":
                    self._handle(message["data"])
                silent = message is None

    def _mark_stale(self) -> None:
        for watched in self._jobs.values():
            watched.stale = True
            watched.wake()

    def _handle(self, message: str) -> None:
        job_id, kind, data = message.split(" ", 2)
        watched = self._jobs.get(job_id)
        if watched is None:
            return
        if kind == "record":
            watched.update(parse_record(data))
        elif kind == "partial":
            partial = json.loads(data)
            watched.draft = partial["attempt"], PartialEvent(**partial["event"])
        watched.wake()
