"""The current schema; `joker.store.migrations` creates it step by step.

Times are seconds since 1970. Fields of a joke have columns if queries use them; all others are in
`details`, so a new field needs no migration.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
    true,
)

SCHEMA_VERSION = "0003"
"""The latest migration, which must match the tables below."""

ID_LENGTH = 12
DIGEST_LENGTH = 32


class Words(TypeDecorator[tuple[str, ...]]):
    """Words stored as ``,one,two,``, so that ``LIKE '%,one,%'`` matches one in any database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:  # noqa: ARG002
        """Join the words; leave a ``LIKE`` pattern unchanged."""
        return value if isinstance(value, str) else "".join(f",{word}" for word in value) + ","

    def process_result_value(self, value: str | None, dialect: Dialect) -> tuple[str, ...]:  # noqa: ARG002
        """Split the words."""
        return tuple(word for word in (value or "").split(",") if word)


metadata = MetaData()

jokes = Table(
    "jokes",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    Column("question", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("details", JSON, nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt", Text),
    Column("categories", Words, nullable=False),
    Column("safe", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("up", Integer, nullable=False, server_default=text("0")),
    Column("down", Integer, nullable=False, server_default=text("0")),
    Column("report", Integer, nullable=False, server_default=text("0")),
    Column("rating", Double, nullable=False, server_default=text("0")),
    # False for a draft in the pool that nobody has seen.
    Column("told", Boolean, nullable=False, server_default=true()),
    # Digest of the punchline while the joke is in the pool, which has no duplicates; else NULL.
    Column("pool_key", String(DIGEST_LENGTH)),
    Column("quality", Double, nullable=False, server_default=text("0")),
    Column("picked", Boolean, nullable=False, server_default=false()),
    Index("jokes_created_at", "created_at"),
    Index("jokes_rating", "rating"),
    Index("jokes_pool_key", "pool_key", unique=True),
    Index(
        "jokes_reported",
        "report",
        sqlite_where=text("report > 0"),
        postgresql_where=text("report > 0"),
    ),
)

votes = Table(
    "votes",
    metadata,
    Column("joke_id", ForeignKey("jokes.id", ondelete="CASCADE"), primary_key=True),
    Column("client", String(DIGEST_LENGTH), primary_key=True),
    Column("vote", String(6), nullable=False),
    Column("voted_at", Double, nullable=False),
    Index("votes_voted_at", "voted_at"),
)

salt = Table(
    "salt",
    metadata,
    Column("value", LargeBinary, nullable=False),
    Column("created_at", Double, nullable=False),
)
"""A single row: the secret that clients are hashed with, replaced from time to time."""

heard = Table(
    "heard",
    metadata,
    Column("client", String(DIGEST_LENGTH), primary_key=True),
    Column("joke_id", ForeignKey("jokes.id", ondelete="CASCADE"), primary_key=True),
    Index("heard_joke_id", "joke_id"),
)
"""The jokes of the pool that each client has heard."""

daily = Table(
    "daily",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("joke_id", ForeignKey("jokes.id", ondelete="CASCADE"), nullable=False),
    Index("daily_joke_id", "joke_id"),
)
"""The joke of each day (UTC), as 2026-01-31."""
