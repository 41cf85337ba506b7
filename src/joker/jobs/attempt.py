"""One attempt at a job, the same for every queue."""

from __future__ import annotations

import logging

from joker.core.errors import JokerError, QueueDownError
from joker.jobs.job import Job, State
from joker.jobs.queue import Progress, Work

_log = logging.getLogger(__name__)


def make_attempt(job: Job, work: Work, progress: Progress) -> Job:
    """Do a job's work once; return the job as told, as failed, or as PENDING for another attempt.

    A `JokerError` is an answer for the person who asked. Anything else is a fault, which is
    logged and may be gone the next time.

    Raises:
        QueueDownError: If the work could not say how far it is; there is nobody to answer.
    """
    try:
        jokes = work(job.request, progress)
    except QueueDownError:
        raise
    except JokerError as error:
        return job.moved(State.FAILURE, error=str(error))
    except Exception:
        _log.exception("attempt %d at job %s failed", job.attempts, job.id)
        return job.moved(State.PENDING)
    return job.moved(State.SUCCESS, jokes=tuple(jokes))
