"""The current schema, which `joker.store.migrations` creates step by step, and jokes as its rows.

Times are seconds since 1970. Fields of a joke have columns if queries use them; all others are in
`details`, so a new field needs no migration.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    TypeDecorator,
    and_,
    false,
    select,
    text,
    true,
    update,
)

from joker.core.errors import InputError, UnknownJokeError
from joker.core.joke import GeneratedJoke
from joker.store.votes import Votes

SCHEMA_VERSION = "0003"
"""The latest migration, which must match the tables below."""

DIGEST_LENGTH = 32
_ID_LENGTH = 12
_ID_ALPHABET = string.ascii_letters + string.digits
_ID = re.compile(rf"[A-Za-z0-9]{{{_ID_LENGTH}}}")
_WORD = re.compile(r"[A-Za-z0-9_-]+")


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
    Column("id", String(_ID_LENGTH), primary_key=True),
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


@dataclass(frozen=True, slots=True)
class StoredJoke:
    """A joke in the store.

    Attributes:
        id: Twelve letters and digits that are hard to guess; used in links.
        details: The joke's other fields, such as its seed. Other versions of this package may have
            stored different ones.
        prompt: The request's prompt; None unless prompts are kept.
        safe: Whether moderation lets it pass in safe mode.
        picked: Whether readers picked it for the pool that comes with the package.
    """

    id: str
    question: str
    answer: str
    details: Mapping[str, Any]
    model: str
    prompt: str | None
    categories: tuple[str, ...]
    safe: bool
    picked: bool
    created_at: float
    votes: Votes

    @property
    def hidden(self) -> bool:
        """Whether it was reported; `Store.get` still returns it, but lists and the pool do not."""
        return self.votes.report > 0

    def to_generated(self) -> GeneratedJoke:
        """Return the joke as it was generated, without fields that this version does not know."""
        known = {field.name for field in fields(GeneratedJoke)}
        details = {name: value for name, value in self.details.items() if name in known}
        columns = {"question": self.question, "answer": self.answer, "model": self.model}
        return GeneratedJoke(**details | columns)


def make_row(
    joke: GeneratedJoke, model: str, categories: Collection[str], safe: bool
) -> dict[str, Any]:
    """Return the row of a new joke; its prompt is null."""
    details = asdict(joke)
    del details["model"]
    return {
        "id": "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH)),
        "question": sanitize(details.pop("question")),
        "answer": sanitize(details.pop("answer")),
        "model": sanitize(model),
        "details": details,
        "prompt": None,
        "categories": tuple(map(check_category, categories)),
        "safe": safe,
        "created_at": time.time(),
        "picked": False,
        **asdict(Votes()),
    }


def joke_from_row(row: Mapping[str, Any] | RowMapping) -> StoredJoke:
    """Return a row as a joke."""
    columns = {field.name: row[field.name] for field in fields(StoredJoke) if field.name in row}
    return StoredJoke(**columns, votes=votes_from_row(row))


def visible(*, safe: bool) -> ColumnElement[bool]:
    """Return the condition for jokes that lists and the pool may show."""
    unreported = jokes.c.report == 0
    return and_(unreported, jokes.c.safe) if safe else unreported


def hash_client(connection: Connection, client: str) -> str:
    """Return the salted hash that identifies a client in this database."""
    key = connection.execute(select(salt.c.value)).scalar_one()
    data = client.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, key=key, digest_size=DIGEST_LENGTH // 2).hexdigest()


def fetch_row(connection: Connection, id: str, *, lock: bool = False) -> RowMapping:  # noqa: A002
    """Return a joke's row, or raise an `UnknownJokeError`."""
    row = None
    if _ID.fullmatch(id):
        query = select(jokes).where(jokes.c.id == id)
        row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise UnknownJokeError("there is no such joke, or it has been deleted")
    return row


def derive_id(key: str) -> str:
    """Return the id of the joke with this key."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    number = int.from_bytes(digest)
    id_ = ""
    for _ in range(_ID_LENGTH):
        number, index = divmod(number, len(_ID_ALPHABET))
        id_ += _ID_ALPHABET[index]
    return id_


def mark_told(connection: Connection, row: RowMapping) -> None:
    """Record that somebody has seen a joke."""
    if not row["told"]:
        connection.execute(update(jokes).where(jokes.c.id == row["id"]).values(told=True))


def votes_from_row(row: Mapping[str, Any] | RowMapping) -> Votes:
    """Return a row's votes."""
    return Votes(row["up"], row["down"], row["report"])


def check_category(category: str) -> str:
    """Return a category, or raise an `InputError` unless it is a word, as `Words` requires."""
    if not _WORD.fullmatch(category):
        raise InputError(f"a category must be a word, not {category[:20]!r}")
    return category


def sanitize(text: str) -> str:
    """Return a text without the characters that databases reject: NUL and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
