"""The store: every joke told and every vote, in SQLite or PostgreSQL.

Web servers, workers and the command line open a `Store`; training reads what
`joker.store.feedback` writes. The store generates and moderates nothing.
"""

from joker.store.database import KEEP_NOTHING, default_database
from joker.store.rows import StoredJoke
from joker.store.store import Period, Store
from joker.store.votes import Vote, Votes

__all__ = [
    "KEEP_NOTHING",
    "Period",
    "Store",
    "StoredJoke",
    "Vote",
    "Votes",
    "default_database",
]
