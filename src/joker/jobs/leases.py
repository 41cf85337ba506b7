"""The workers' side of the records in Redis: claim a job, work on it, write its result.

A worker holds a job by a lease, which a thread of this module renews. Once the lease of a dead
worker has expired, another worker's sweep publishes the job again, and later writes under the old
lease are rejected. `joker.worker` uses this module.
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
    CONNECTION,
    FUNCTION,
    KEY,
    LIBRARY,
    SCRIPT,
    is_missing,
    reaching,
    read_record,
)
from joker.jobs.connection import connect
from joker.jobs.execution import Observe, make_attempt
from joker.jobs.job import Job, JokeEvent, State
from joker.jobs.queue import TOKENS_AT_ONCE, Work

# Retries of a call, a second apart, while Redis restarts, so that finished jokes are not lost.
_RETRIES = 60
_WAIT_FOR = (RedisConnectionError, RedisTimeoutError, OSError)
# Renewals within the time in which a lease expires.
_RENEWALS = 5
# Shortest time between two drafts of a joke, for each joke of the job.
_DRAFT_SECONDS = 0.1
# Pause in drafts after nobody has read one.
_QUIET_SECONDS = 0.5

_log = logging.getLogger(__name__)


class _Lease(GenerationListener):
    """One attempt's lease on a job; writes the progress into the record.

    The last joke is written with the result, which follows at once.
    """

    def __init__(self, call: Callable[..., Any], job_id: str) -> None:
        self._call = call
        self.job_id = job_id
        self.token = secrets.token_urlsafe(8)
        self._ended = threading.Event()
        self._shown: dict[int, float] = {}
        self._began = self._quiet_until = time.monotonic()
        self.tokens = 0
        self._count = 0
        self._received: set[int] = set()
        self._written = 0
        self._unwritten: list[bytes] = []

    def claim(self, lease_seconds: float) -> Job | None:
        """Claim the job; return it, or None if it was not waiting."""
        record = self._call("claim", self.job_id, self.token, lease_seconds)
        if record is None:
            return None
        job = read_record(record)
        self._count = job.request.count
        self.tokens = job.request.tokens
        return job

    def change(self, command: str, *arguments: Any) -> int | None:
        """Change the record; return the function's answer, or None if the lease was lost."""
        answer: int | None = self._call(command, self.job_id, self.token, *arguments)
        if answer is None:
            self.end()
        return answer

    def end(self) -> None:
        """Note that the lease was lost."""
        self._ended.set()

    def wants_drafts(self) -> bool:
        return time.monotonic() >= self._quiet_until

    def on_draft(self, index: int, question: str, answer: str) -> None:
        now = time.monotonic()
        if now - self._shown.get(index, self._began) >= _DRAFT_SECONDS * self._count:
            self._shown[index] = now
            part = {"index": index, "question": question, "answer": answer}
            is_read = self.change("tell_part", to_json(part))
            self._quiet_until = now if is_read else now + _QUIET_SECONDS

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:
        self._received.add(index)
        self._unwritten.append(to_json(JokeEvent(index, joke)))
        if len(self._received) < self._count and self.change(
            "tell_joke", self._written, *self._unwritten
        ):
            self._written += 1
            self._unwritten.clear()

    def should_stop(self) -> bool:
        return self._ended.is_set()

    def succeed(self, told: tuple[JokeEvent, ...]) -> None:
        """Finish the job with its jokes."""
        others = [to_json(event) for event in told if event.index not in self._received]
        self.change("succeed", *self._unwritten, *others)

    def fail(self, error: str | None, refused: bool) -> None:
        """Finish the job with the reason why there are no more jokes."""
        self.change("fail", to_json(error), to_json(refused), *self._unwritten)


class Leases:
    """The leases of one worker process. A context manager: within it they are renewed.

    Args:
        url: The broker's; see `joker.jobs.connection`.
        lease_seconds: How long after its last renewal a job goes to another worker.
        observe: Gets the outcome and duration of every attempt.
    """

    def __init__(
        self,
        url: str,
        *,
        lease_seconds: float,
        observe: Observe = lambda *_: None,
    ) -> None:
        self._url = url
        self._lease_seconds = lease_seconds
        self._observe = observe
        retry = Retry(ExponentialBackoff(cap=1.0, base=0.05), _RETRIES, _WAIT_FOR)
        self._redis = connect(url, retry=retry, **CONNECTION)
        self._worker = secrets.token_urlsafe(8)
        self._held: set[_Lease] = set()
        self._expected: dict[str, int] = {}
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="leases", daemon=True)

    def __enter__(self) -> Self:
        """Start to renew leases and to sweep.

        Raises:
            QueueDownError: If the Redis cannot be reached or used.
        """
        with self._connect() as redis:
            redis.exists(KEY)  # Any node of a cluster would answer a ping.
        self._keeper.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._keeper.join(self._lease_seconds)
        with suppress(QueueDownError), self._connect() as redis:
            redis.fcall(FUNCTION, 1, KEY, "leave", self._worker)
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    @property
    def has_room(self) -> bool:
        """Whether the jobs that are expected or held leave room for another."""
        held = sum(lease.tokens for lease in list(self._held))
        return held + sum(list(self._expected.values())) < TOKENS_AT_ONCE

    def expect(self, job_id: str, tokens: int) -> None:
        """Keep room for a job whose message has come, until `work_on` has claimed it."""
        self._expected[job_id] = tokens

    def work_on(self, job_id: str, work: Work) -> None:
        """Claim a job, work on it and finish it; do nothing if it is no longer waiting.

        Raises:
            QueueDownError: If Redis stays unreachable; the job is swept later.
        """
        lease = _Lease(self._call, job_id)
        try:
            job = lease.claim(self._lease_seconds)
            if job is None:
                return
            self._held.add(lease)
        finally:
            self._expected.pop(job_id, None)
        try:
            self._settle(lease, make_attempt(job, work, lease, self._observe))
        finally:
            self._held.discard(lease)

    def _settle(self, lease: _Lease, outcome: Job) -> None:
        if outcome.state is State.SUCCESS:
            lease.succeed(outcome.told)
        elif outcome.state is State.FAILURE:
            lease.fail(outcome.error, outcome.refused)
        else:
            lease.change("give_back")

    def _keep(self) -> None:
        """Renew leases and publish lost jobs until closed; the body of the keeper thread."""
        pause = self._lease_seconds / _RENEWALS
        while True:
            try:
                held = {lease.token: lease for lease in list(self._held)}
                pairs = [part for lease in held.values() for part in (lease.job_id, lease.token)]
                for token in self._call("attend", self._worker, self._lease_seconds, *pairs):
                    held[token].end()
                for job_id in self._call("sweep", pause, self._lease_seconds):
                    _log.info("published again", extra={"fields": {"task_id": job_id}})
            except Exception as error:  # Without the keeper, this process would lose all its jobs.
                _log.warning("leases were not renewed: %s", error)
            if self._closing.wait(pause):
                return

    def _call(self, *arguments: Any) -> Any:
        with reaching(self._url):
            try:
                return self._redis.fcall(FUNCTION, 1, KEY, *arguments)
            except ResponseError as error:
                if not is_missing(error):
                    raise
            try:
                self._redis.function_load(LIBRARY, replace=True)
            except OutOfMemoryError:
                return self._redis.eval(SCRIPT, 1, KEY, *arguments)
            return self._redis.fcall(FUNCTION, 1, KEY, *arguments)

    @contextmanager
    def _connect(self) -> Iterator[Redis]:
        """Give a client that does not wait for an unreachable Redis."""
        once = Retry(NoBackoff(), 0)
        with reaching(self._url), connect(self._url, retry=once, **CONNECTION) as redis:
            yield redis
