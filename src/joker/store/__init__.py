"""The store: every joke told and every vote, in SQLite or PostgreSQL.

Web servers and the command line open a `Store`; training reads the files that
`joker.store.feedback` writes.
"""

from joker.store.database import IN_MEMORY, default_database
from joker.store.rows import StoredJoke
from joker.store.store import Period, Store
from joker.store.votes import Vote, Votes

__all__ = [
    "IN_MEMORY",
    "Period",
    "Store",
    "StoredJoke",
    "Vote",
    "Votes",
    "default_database",
]
