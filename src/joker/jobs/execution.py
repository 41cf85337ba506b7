"""One attempt at a job, the same for every queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import count

from joker.core.errors import (
    EngineDownError,
    GenerationError,
    JokerError,
    PromptError,
    QueueDownError,
)
from joker.core.joke import GeneratedJoke
from joker.core.tracing import Span, span, traceparent
from joker.engines.protocol import AbandonedError, GenerationListener
from joker.jobs.job import Job, JokeEvent, State
from joker.jobs.queue import MOST_ATTEMPTS, Work

_log = logging.getLogger(__name__)


Observe = Callable[[str, float], None]
"""Gets an attempt's outcome and duration in seconds."""

OUTCOMES = ("told", "cancelled", "refused", "fault", "lost")

TELLING_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
"""Histogram buckets, in seconds, for the duration of jobs on servers and of attempts on workers."""


def make_attempt(
    job: Job, work: Work, listener: GenerationListener, observe: Observe = lambda *_: None
) -> Job:
    """Do a job's work once; return the job as told, as failed, or as PENDING for another attempt.

    A `JokerError` is an answer for the user. Any other exception is a fault, which is logged and
    retried. So is an engine that is down; its error is the answer only of the last attempt. Every
    attempt is one line of the log and one span of the request's trace, after a span for the time
    in the queue.

    Raises:
        QueueDownError: If the work could not report its progress, so the result cannot be either.
    """
    parent = job.trace
    if job.attempts == 1:  # When a later wait began is not recorded.
        with span("queue", {"joker.job.id": job.id}, parent=parent, began=job.created_at):
            parent = traceparent()
    with span("attempt", parent=parent, kind="CONSUMER") as traced:
        return _make_attempt(job, work, listener, observe, traced)


def _make_attempt(
    job: Job, work: Work, listener: GenerationListener, observe: Observe, traced: Span
) -> Job:
    began = time.perf_counter()
    outcome = "lost"
    jokes: list[GeneratedJoke] = []
    try:
        jokes = work(job.request, listener)
        outcome = "cancelled" if listener.should_stop() else "told"
        return job.moved(State.SUCCESS, told=tuple(map(JokeEvent, count(), jokes)))
    except AbandonedError:
        outcome = "cancelled"
        return job.moved(State.REVOKED)
    except QueueDownError:
        raise
    except EngineDownError as error:
        outcome = "fault"
        _log.warning("%s", error, extra={"fields": {"task_id": job.id}})
        if job.attempts < MOST_ATTEMPTS:
            return job.moved(State.PENDING)
        return job.moved(State.FAILURE, error=str(error))
    except JokerError as error:
        refused = isinstance(error, GenerationError | PromptError)
        outcome = "refused" if refused else "fault"
        return job.moved(State.FAILURE, error=str(error), refused=refused)
    except Exception:
        outcome = "fault"
        _log.exception("fault", extra={"fields": {"task_id": job.id}})
        return job.moved(State.PENDING)
    finally:
        seconds = time.perf_counter() - began
        observe(outcome, seconds)
        fields = {
            "request_id": job.request_id,
            "task_id": job.id,
            "attempt": job.attempts,
            "outcome": outcome,
            "seconds": round(seconds, 4),
        }
        traced.attributes |= {
            "joker.job.id": job.id,
            "joker.job.attempt": job.attempts,
            "joker.job.outcome": outcome,
            "joker.job.jokes": len(jokes),
            "error.type": outcome if outcome in ("refused", "fault", "lost") else None,
        }
        _log.info("attempt", extra={"fields": fields})
