"""One attempt at a job, the same for every queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from joker.core.errors import EngineDownError, JokerError, QueueDownError
from joker.engines.protocol import AbandonedError, GenerationListener
from joker.jobs.job import Job, State
from joker.jobs.queue import MOST_ATTEMPTS, Work

_log = logging.getLogger(__name__)


Observe = Callable[[str, float], None]
"""Takes in an attempt's outcome and its seconds."""

OUTCOMES = ("told", "cancelled", "refused", "fault", "lost")

TELLING_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
"""Seconds that part the bars of histograms of how long telling takes, servers' and workers'."""


def make_attempt(
    job: Job, work: Work, listener: GenerationListener, observe: Observe = lambda *_: None
) -> Job:
    """Do a job's work once; return the job as told, as failed, or as PENDING for another attempt.

    A `JokerError` is an answer for the person who asked. Anything else is a fault, which is
    logged and may be gone the next time; so may an engine's being down, which is the answer only
    of the last attempt. Either way one line of the log says how it went.

    Raises:
        QueueDownError: If the work could not say how far it is; there is nobody to answer.
    """
    began = time.perf_counter()
    outcome = "lost"
    try:
        jokes = work(job.request, listener)
        outcome = "cancelled" if listener.should_stop() else "told"
        return job.moved(State.SUCCESS, jokes=tuple(jokes))
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
        outcome = "refused"
        return job.moved(State.FAILURE, error=str(error))
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
        _log.info("attempt", extra={"fields": fields})
