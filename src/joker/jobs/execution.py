"""One attempt at a job, the same for every queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
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
from joker.jobs.queue import MAX_ATTEMPTS, Work

_log = logging.getLogger(__name__)

ObserveAttempt = Callable[[str, float], None]
"""Receives an attempt's outcome and its duration in seconds."""

OUTCOMES = ("told", "cancelled", "refused", "fault", "lost")

JOB_SECONDS_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
"""Histogram buckets for the duration of jobs and of attempts."""


def run_attempt(
    job: Job, work: Work, listener: GenerationListener, observe: ObserveAttempt = lambda *_: None
) -> Job:
    """Run one attempt at a job; return the job in its final state, or PENDING for a retry.

    A `JokerError` fails the job with its message. An engine that is down is retried until the last
    attempt. Any other exception is a fault, which is logged and retried. Every attempt is one line
    of the log and one span of the request's trace; the time in the queue is another span.

    Raises:
        QueueDownError: If the work could not report its progress; nor could the result be written.
    """
    parent = job.trace
    if job.attempts == 1:  # The start of later waits is not recorded.
        with span("queue", {"joker.job.id": job.id}, parent=parent, began=job.created_at):
            parent = traceparent()
    with span("attempt", parent=parent, kind="CONSUMER") as attempt_span:
        return _run_attempt(job, work, listener, observe, attempt_span)


def _run_attempt(
    job: Job, work: Work, listener: GenerationListener, observe: ObserveAttempt, attempt_span: Span
) -> Job:
    began = time.perf_counter()
    outcome = "lost"
    jokes: list[GeneratedJoke] = []
    try:
        jokes = work(job.request, listener)
        outcome = "cancelled" if listener.should_stop() else "told"
        return replace(job, state=State.SUCCESS, told=tuple(map(JokeEvent, count(), jokes)))
    except AbandonedError:
        outcome = "cancelled"
        return replace(job, state=State.REVOKED)
    except QueueDownError:
        raise
    except EngineDownError as error:
        outcome = "fault"
        _log.warning("%s", error, extra={"fields": {"task_id": job.id}})
        if job.attempts < MAX_ATTEMPTS:
            return replace(job, state=State.PENDING)
        return replace(job, state=State.FAILURE, error=str(error))
    except JokerError as error:
        refused = isinstance(error, GenerationError | PromptError)
        outcome = "refused" if refused else "fault"
        return replace(job, state=State.FAILURE, error=str(error), refused=refused)
    except Exception:
        outcome = "fault"
        _log.exception("fault", extra={"fields": {"task_id": job.id}})
        return replace(job, state=State.PENDING)
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
        attempt_span.attributes |= {
            "joker.job.id": job.id,
            "joker.job.attempt": job.attempts,
            "joker.job.outcome": outcome,
            "joker.job.jokes": len(jokes),
            "error.type": outcome if outcome in ("refused", "fault", "lost") else None,
        }
        _log.info("attempt", extra={"fields": fields})
