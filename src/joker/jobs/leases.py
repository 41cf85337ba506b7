"""The worker side of the queue over Redis: claim a job, work on it, write its result.

A worker holds each of its jobs by a lease, which a thread renews. Once a dead worker's lease has
expired, another worker's sweep republishes the job; writes under the old lease are rejected.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from pydantic_core import to_json
from redis import Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from joker.core.errors import QueueDownError
from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.jobs.broker import (
    CONNECTION_OPTIONS,
    FUNCTION,
    LIBRARY,
    SCRIPT,
    SLOT_KEY,
    is_function_missing,
    parse_record,
    translate_redis_errors,
)
from joker.jobs.connection import connect
from joker.jobs.execution import ObserveAttempt, run_attempt
from joker.jobs.job import Job, JokeEvent, State
from joker.jobs.queue import MAX_RUNNING_TOKENS, Work

# Retries of a call, at most a second apart, so that finished jokes survive a restart of Redis.
_RETRIES = 60
_RETRIED_ERRORS = (RedisConnectionError, RedisTimeoutError, OSError)
_RENEWALS_PER_LEASE = 5
# Minimum time between two drafts of a joke, times the number of jokes in the job.
_DRAFT_SECONDS = 0.1
# Pause in drafts after one that no client reads.
_UNREAD_PAUSE_SECONDS = 0.5

_log = logging.getLogger(__name__)


class _Lease(GenerationListener):
    """One attempt's lease on a job; writes the attempt's progress and result to the record.

    The last joke is written with the result, which follows at once.
    """

    def __init__(self, call: Callable[..., Any], job_id: str) -> None:
        self._call = call
        self.job_id = job_id
        self.token = secrets.token_urlsafe(8)
        self.tokens = 0
        self._count = 0
        self._lost = threading.Event()
        self._began = self._drafts_paused_until = time.monotonic()
        self._draft_times: dict[int, float] = {}
        self._received: set[int] = set()
        self._written = 0
        self._unwritten: list[bytes] = []

    def claim(self, lease_seconds: float) -> Job | None:
        """Claim the job; return None if it is not waiting."""
        record = self._call("claim", self.job_id, self.token, lease_seconds)
        if record is None:
            return None
        job = parse_record(record)
        self._count = job.request.count
        self.tokens = job.request.tokens
        return job

    def update(self, command: str, *arguments: Any) -> int | None:
        """Run a command for lease holders; return its answer, or None if the lease was lost."""
        answer: int | None = self._call(command, self.job_id, self.token, *arguments)
        if answer is None:
            self.mark_lost()
        return answer

    def mark_lost(self) -> None:
        """Stop the attempt, because the lease was lost."""
        self._lost.set()

    def wants_drafts(self) -> bool:
        return time.monotonic() >= self._drafts_paused_until

    def on_draft(self, index: int, question: str, answer: str) -> None:
        now = time.monotonic()
        if now - self._draft_times.get(index, self._began) >= _DRAFT_SECONDS * self._count:
            self._draft_times[index] = now
            draft = {"index": index, "question": question, "answer": answer}
            is_read = self.update("publish_draft", to_json(draft))
            self._drafts_paused_until = now if is_read else now + _UNREAD_PAUSE_SECONDS

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:
        self._received.add(index)
        self._unwritten.append(to_json(JokeEvent(index, joke)))
        if len(self._received) < self._count and self.update(
            "add_joke", self._written, *self._unwritten
        ):
            self._written += 1
            self._unwritten.clear()

    def should_stop(self) -> bool:
        return self._lost.is_set()

    def succeed(self, told: tuple[JokeEvent, ...]) -> None:
        """Finish the job with its jokes."""
        rest = [to_json(event) for event in told if event.index not in self._received]
        self.update("succeed", *self._unwritten, *rest)

    def fail(self, error: str | None, refused: bool) -> None:
        """Fail the job."""
        self.update("fail", to_json(error), to_json(refused), *self._unwritten)


class Leases:
    """The leases of one worker process, renewed within its context.

    Args:
        url: The broker URL; see `joker.jobs.connection`.
        lease_seconds: Time after a lease's last renewal until it expires.
        observe: Receives the outcome and duration of every attempt.
    """

    def __init__(
        self,
        url: str,
        *,
        lease_seconds: float,
        observe: ObserveAttempt = lambda *_: None,
    ) -> None:
        self._url = url
        self._lease_seconds = lease_seconds
        self._observe = observe
        retry = Retry(ExponentialBackoff(cap=1.0, base=0.05), _RETRIES, _RETRIED_ERRORS)
        self._redis = connect(url, retry=retry, **CONNECTION_OPTIONS)
        self._worker = secrets.token_urlsafe(8)
        self._held: set[_Lease] = set()
        self._reserved: dict[str, int] = {}
        self._closing = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="leases", daemon=True)

    def __enter__(self) -> Self:
        """Start to renew leases and to sweep.

        Raises:
            QueueDownError: If Redis cannot be reached or used.
        """
        with self._connect_once() as redis:
            redis.exists(SLOT_KEY)  # Any node of a cluster would answer a ping.
        self._renewer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._renewer.join(self._lease_seconds)
        with suppress(QueueDownError), self._connect_once() as redis:
            redis.fcall(FUNCTION, 1, SLOT_KEY, "deregister", self._worker)
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    @property
    def has_room(self) -> bool:
        """Whether the tokens of claimed and reserved jobs leave room for another job."""
        held = sum(lease.tokens for lease in list(self._held))
        return held + sum(list(self._reserved.values())) < MAX_RUNNING_TOKENS

    def reserve(self, job_id: str, tokens: int) -> None:
        """Reserve tokens for a job whose message has arrived, until `work_on` claims it."""
        self._reserved[job_id] = tokens

    def work_on(self, job_id: str, work: Work) -> None:
        """Claim a job, work on it and write its result; do nothing if it is not waiting.

        Raises:
            QueueDownError: If Redis stays unreachable; a later sweep republishes the job.
        """
        lease = _Lease(self._call, job_id)
        try:
            job = lease.claim(self._lease_seconds)
            if job is None:
                return
            self._held.add(lease)
        finally:
            self._reserved.pop(job_id, None)
        try:
            self._write_outcome(lease, run_attempt(job, work, lease, self._observe))
        finally:
            self._held.discard(lease)

    def _write_outcome(self, lease: _Lease, outcome: Job) -> None:
        if outcome.state is State.SUCCESS:
            lease.succeed(outcome.told)
        elif outcome.state is State.FAILURE:
            lease.fail(outcome.error, outcome.refused)
        else:
            lease.update("release")

    def _renew(self) -> None:
        """Renew leases and sweep until closed; the body of the thread."""
        interval = self._lease_seconds / _RENEWALS_PER_LEASE
        while True:
            try:
                held = {lease.token: lease for lease in list(self._held)}
                pairs = [part for lease in held.values() for part in (lease.job_id, lease.token)]
                for token in self._call("heartbeat", self._worker, self._lease_seconds, *pairs):
                    held[token].mark_lost()
                for job_id in self._call("sweep", interval, self._lease_seconds):
                    _log.info("republished", extra={"fields": {"task_id": job_id}})
            except Exception as error:  # If this thread ended, the worker would lose all its jobs.
                _log.warning("leases were not renewed: %s", error)
            if self._closing.wait(interval):
                return

    def _call(self, *arguments: Any) -> Any:
        with translate_redis_errors(self._url):
            try:
                return self._redis.fcall(FUNCTION, 1, SLOT_KEY, *arguments)
            except ResponseError as error:
                if not is_function_missing(error):
                    raise
            try:
                self._redis.function_load(LIBRARY, replace=True)
            except OutOfMemoryError:
                return self._redis.eval(SCRIPT, 1, SLOT_KEY, *arguments)
            return self._redis.fcall(FUNCTION, 1, SLOT_KEY, *arguments)

    @contextmanager
    def _connect_once(self) -> Iterator[Redis]:
        """Yield a client that does not retry."""
        retry = Retry(NoBackoff(), 0)
        with (
            translate_redis_errors(self._url),
            connect(self._url, retry=retry, **CONNECTION_OPTIONS) as redis,
        ):
            yield redis
