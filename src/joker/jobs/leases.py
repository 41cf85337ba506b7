"""The workers' side of the records in Redis: claim a job, work on it, say what came of it.

A worker holds a job by a lease, which a thread of this module renews. A worker that dies
renews nothing: when its lease has ended, any other worker's sweep publishes the job again,
and what the dead one might still say is refused. `joker.worker` calls this.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from redis import Redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from joker.core.errors import QueueDownError
from joker.jobs.execution import Observe, make_attempt
from joker.jobs.job import Job, JokeResult, State
from joker.jobs.queue import Work
from joker.jobs.records import CONNECTION, SCRIPT, reaching, read_job, to_json

# A Redis that restarts is waited for, at a second a try: jokes told meanwhile are not lost.
_RETRIES = 60
# Leases are renewed so many times before they would end.
_RENEWALS = 5
# A job that nobody claimed for so many leases is published again.
_UNCLAIMED_LEASES = 3

_log = logging.getLogger(__name__)


class _Lease:
    """One attempt's hold on a job; tells `Progress` to the record."""

    def __init__(self, call: Callable[..., Any], job_id: str) -> None:
        self._call = call
        self.job_id = job_id
        self.token = secrets.token_urlsafe(8)
        self._ended = threading.Event()

    def change(self, command: str, *arguments: Any) -> bool:
        """Change the record and say whether this lease still allowed it."""
        if self._call(command, self.job_id, self.token, *arguments) is None:
            self._ended.set()
            return False
        return True

    def partial(self, index: int, question: str, answer: str) -> None:
        part = {"index": index, "question": question, "answer": answer}
        self.change("tell_part", to_json(part))

    def joke(self, index: int, joke: JokeResult) -> None:
        fields = asdict(joke)
        self.change("tell_joke", index, to_json(fields), to_json({"index": index, **fields}))

    def stopped(self) -> bool:
        return self._ended.is_set()


class Leases:
    """The leases of one worker process. A context manager: within it they are renewed.

    Args:
        url: The Redis, as redis://:password@host:port/number.
        lease_seconds: After so long without a sign of this process, its jobs are others'.
        publish: Publishes a job that waits.
        observe: Hears of every attempt.
    """

    def __init__(
        self,
        url: str,
        *,
        lease_seconds: float,
        publish: Callable[[str], None],
        observe: Observe = lambda *_: None,
    ) -> None:
        self._url = url
        self._lease_seconds = lease_seconds
        self._publish = publish
        self._observe = observe
        retry = Retry(ExponentialBackoff(cap=1.0, base=0.05), _RETRIES)
        self._redis = Redis.from_url(url, retry=retry, **CONNECTION)
        self._script = self._redis.register_script(SCRIPT)
        self._worker = secrets.token_urlsafe(8)
        self._held: set[_Lease] = set()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="leases", daemon=True)

    def __enter__(self) -> Self:
        """Start to renew leases and to sweep.

        Raises:
            QueueDownError: If the Redis cannot be reached.
        """
        with self._connect() as redis:
            redis.ping()
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
            redis.register_script(SCRIPT)(args=["leave", self._worker])
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._redis.close()

    def work_on(self, job_id: str, work: Work) -> None:
        """Claim a job, work on it and finish it; do nothing where it does not wait any more.

        Raises:
            QueueDownError: If the Redis stays away; the job is swept later.
        """
        lease = _Lease(self._call, job_id)
        record = self._call("claim", job_id, lease.token, self._lease_seconds)
        if record is None:
            return
        self._held.add(lease)
        try:
            self._settle(lease, make_attempt(read_job(record), work, lease, self._observe))
        finally:
            self._held.discard(lease)

    def _settle(self, lease: _Lease, outcome: Job) -> None:
        if outcome.state is State.SUCCESS:
            lease.change("succeed", *(to_json(asdict(joke)) for joke in outcome.jokes))
        elif outcome.state is State.FAILURE:
            lease.change("fail", to_json(outcome.error))
        elif lease.change("give_back"):
            self._publish(lease.job_id)

    def _keep(self) -> None:
        """Renew what is held and publish what was lost, until closed; the keeper's body."""
        pause = self._lease_seconds / _RENEWALS
        unclaimed = self._lease_seconds * _UNCLAIMED_LEASES
        while True:
            try:
                self._call("attend", self._worker, self._lease_seconds)
                for lease in list(self._held):
                    lease.change("renew", self._lease_seconds)
                for job_id in self._call("sweep", pause, unclaimed):
                    _log.info("published again", extra={"fields": {"task_id": job_id}})
                    self._publish(job_id)
            except Exception as error:  # A keeper that ends would lose every job of this process.
                _log.warning("leases were not renewed: %s", error)
            if self._closing.wait(pause):
                return

    def _call(self, *arguments: Any) -> Any:
        with reaching(self._url):
            return self._script(args=arguments)

    @contextmanager
    def _connect(self) -> Iterator[Redis]:
        """Give a client that does not wait for a Redis that is away."""
        once = Retry(NoBackoff(), 0)
        with reaching(self._url), Redis.from_url(self._url, retry=once, **CONNECTION) as redis:
            yield redis
