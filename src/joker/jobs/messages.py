"""Why a job failed or was not taken in: the sentences that every queue says alike."""

from __future__ import annotations

MOST_ATTEMPTS = 3

LOST = (
    f"the joke could not be told in {MOST_ATTEMPTS} attempts because of a fault of the server; "
    "try again later"
)
CONFLICT = "the idempotency key stands for another request; use a new key"


def late(deadline_seconds: float) -> str:
    """Return why a job failed that was not told by its deadline."""
    return (
        f"the joke was not told within {deadline_seconds:g} seconds; "
        "ask for fewer jokes or try again later"
    )


def full(max_queue_size: int) -> str:
    """Return why a job is not taken in where so many wait already."""
    return f"{max_queue_size} jobs wait already; try again later"


def unknown(job_id: str) -> str:
    """Return why nothing can be said of a job."""
    return f"there is no job {job_id!r}, or it has been forgotten; ask for a new one"
