"""The store: every joke told and every vote; `joker.store.pool` has the jokes not yet told.

Calls block, usually for less than a millisecond. Asynchronous servers make them through
`asyncio.to_thread`: SQLAlchemy's asynchronous interface to SQLite uses threads, too.

If the database is down, `Store.add` and `Store.pool` do not fail, so that jokes are still told. All
other methods raise `StoreDownError`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import (
    Connection,
    RowMapping,
    and_,
    delete,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from joker.core.errors import InputError, StoreDownError
from joker.core.joke import GeneratedJoke
from joker.store.database import IN_MEMORY, Database, default_database
from joker.store.pool import Pool
from joker.store.tables import (
    StoredJoke,
    daily,
    derive_id,
    fetch_row,
    hash_client,
    heard,
    joke_from_row,
    jokes,
    make_row,
    mark_told,
    salt,
    sanitize,
    visible,
    votes,
    votes_from_row,
)
from joker.store.votes import VOTES, Vote, Votes

__all__ = [
    "IN_MEMORY",
    "Period",
    "Store",
    "StoredJoke",
    "Vote",
    "Votes",
    "default_database",
]

Period = Literal["day", "week", "month", "ever"]

CLIENT_TTL_DAYS = 90
"""How long the store recognizes a client."""

_DAY_SECONDS = 86_400.0
_PERIOD_DAYS = {"day": 1, "week": 7, "month": 30}
_MAX_JOKES_ON_DISK = 1_000_000
_MAX_JOKES_IN_MEMORY = 10_000
_BATCH = 1000
_PRUNE_SECONDS = 3600.0
_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Store:
    """Keeps jokes and votes in SQLite or PostgreSQL; threads and processes may share it.

    A client is any text that identifies it, such as an address; only a salted hash of it is stored.
    The salt is replaced after `CLIENT_TTL_DAYS`: from then on nobody can find out who voted, and a
    client may vote on an old joke again and hear it again.

    Args:
        database: URL, see `joker.store.database.Database`; by default a SQLite file in the user's
            data folder.
        keep_prompts: Store the prompts of jokes.
        max_age_days: Age at which jokes and their votes are deleted; None keeps them. This and
            ``max_jokes`` do not apply to jokes in the pool.
        max_jokes: Maximum number of jokes; beyond it the oldest are deleted, those without votes
            first. By default a million, or ten thousand in memory.
        max_pool_size: Maximum size of the pool; beyond it the worst drafts are removed.

    The other arguments and the errors are those of `joker.store.database.Database`.
    """

    def __init__(
        self,
        database: str | None = None,
        *,
        keep_prompts: bool = False,
        max_age_days: float | None = None,
        max_jokes: int | None = None,
        max_pool_size: int = 1000,
        timeout_seconds: float = 5.0,
        retry_seconds: float = 5.0,
    ) -> None:
        self._database = Database(
            database or default_database(),
            timeout_seconds=timeout_seconds,
            retry_seconds=retry_seconds,
        )
        self._keep_prompts = keep_prompts
        self._max_age_days = max_age_days
        if max_jokes is None:
            max_jokes = _MAX_JOKES_IN_MEMORY if self.in_memory else _MAX_JOKES_ON_DISK
        self._max_jokes = max_jokes
        self.pool = Pool(self._database, max_pool_size)
        self._prune_after_adds = 0
        self._prune_at = 0.0

    def __str__(self) -> str:
        return str(self._database)

    @property
    def in_memory(self) -> bool:
        """Whether the database is in this process's memory."""
        return self._database.in_memory

    @property
    def down(self) -> bool:
        """Whether the last call failed to reach the database."""
        return self._database.down

    @property
    def failures(self) -> int:
        """Number of failed calls."""
        return self._database.failures

    def check(self) -> None:
        """Connect, and create or migrate the tables."""
        with self._database.begin(write=True):
            pass

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    # Jokes

    def add(
        self,
        joke: GeneratedJoke,
        *,
        model: str,
        prompt: str | None = None,
        categories: Collection[str] = (),
        safe: bool = True,
        key: str | None = None,
    ) -> StoredJoke | None:
        """Store a joke that was told, with moderation's labels; return None if the store is down.

        The prompt is dropped unless prompts are kept. Later calls with the same idempotency key
        return the first one's joke. Its id is derived from the key, which must be hard to guess.
        """
        row = make_row(joke, model, categories, safe)
        row["prompt"] = sanitize(prompt) if prompt and self._keep_prompts else None
        if key is not None:
            row["id"] = derive_id(key)
        try:
            with self._database.begin(write=True) as connection:
                insert_once = _INSERTS[connection.dialect.name](jokes).on_conflict_do_nothing()
                if not connection.execute(insert_once.values(row)).rowcount:
                    return joke_from_row(fetch_row(connection, row["id"]))
        except StoreDownError:
            return None
        with suppress(StoreDownError):
            self._prune_when_due()
        return joke_from_row(row)

    def get(self, id: str) -> StoredJoke:  # noqa: A002
        """Return a joke, hidden or not, or raise an `UnknownJokeError`."""
        with self._database.begin() as connection:
            return joke_from_row(fetch_row(connection, id))

    def top(
        self, period: Period = "week", count: int = 10, *, safe: bool = True
    ) -> list[StoredJoke]:
        """Return the jokes with the best `Votes.rating` that received a vote in the period.

        Hidden jokes and jokes that nobody likes are left out, and offensive ones if ``safe``.
        """
        query = select(jokes).where(visible(safe=safe), jokes.c.up > 0)
        if period != "ever":
            since = time.time() - _PERIOD_DAYS[period] * _DAY_SECONDS
            recent = select(votes.c.joke_id).where(votes.c.voted_at >= since)
            query = query.where(jokes.c.id.in_(recent))
        query = query.order_by(
            jokes.c.rating.desc(), jokes.c.up.desc(), jokes.c.created_at.desc()
        ).limit(count)
        with self._database.begin() as connection:
            return [joke_from_row(row) for row in connection.execute(query).mappings()]

    def today(self) -> StoredJoke | None:
        """Return the joke of the day (UTC), the same for everybody; None if there are no jokes.

        The first call of the day chooses it: the best inoffensive joke that is liked or in the pool
        and has not been a joke of the day. If it is reported, another replaces it.
        """
        day = datetime.now(UTC).date().isoformat()
        query = select(jokes).join(daily).where(daily.c.day == day, visible(safe=True))
        with self._database.begin() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            with self._database.begin(write=True) as connection:
                self._database.lock(connection, "today")
                row = connection.execute(query).mappings().first()
                row = row or _choose_daily(connection, day)
        return joke_from_row(row) if row else None

    # Votes

    def vote(self, id: str, client: str, vote: Vote) -> Votes:  # noqa: A002
        """Cast a client's vote on a joke, which replaces its earlier one; return all votes on it.

        Raises:
            InputError: If there is no such vote.
            UnknownJokeError: If there is no such joke.
        """
        if vote not in VOTES:
            raise InputError(f"a vote must be {', '.join(VOTES)}, not {str(vote)[:20]!r}")
        with self._database.begin(write=True) as connection:
            # The row lock makes other votes on the joke wait.
            row = fetch_row(connection, id, lock=True)
            key = {"joke_id": row["id"], "client": hash_client(connection, client)}
            own = and_(*(votes.c[name] == value for name, value in key.items()))
            old = connection.execute(select(votes.c.vote).where(own)).scalar()
            counts = votes_from_row(row)
            if old == vote:
                return counts
            values = {"vote": vote, "voted_at": time.time()}
            if old is None:
                connection.execute(insert(votes).values(key | values))
            else:
                connection.execute(update(votes).where(own).values(values))
            counts = counts.changed(old, vote)
            _update_counts(connection, row, counts)
        return counts

    def voted(self) -> Iterator[StoredJoke]:
        """Yield all jokes with votes, including hidden ones, the oldest first."""
        query = (
            select(jokes)
            .where(jokes.c.up + jokes.c.down + jokes.c.report > 0)
            .order_by(jokes.c.created_at, jokes.c.id)
            .execution_options(yield_per=1000)
        )
        with self._database.begin() as connection:
            for row in connection.execute(query).mappings():
                yield joke_from_row(row)

    # Reports

    def reported(self) -> list[tuple[StoredJoke, float]]:
        """Return the hidden jokes with the times of their last reports, the latest first."""
        last = func.max(votes.c.voted_at)
        query = (
            select(jokes, last.label("reported_at"))
            .join(votes)
            .where(votes.c.vote == "report")
            .group_by(jokes.c.id)
            .order_by(last.desc(), jokes.c.id)
        )
        with self._database.begin() as connection:
            rows = connection.execute(query).mappings()
            return [(joke_from_row(row), row["reported_at"]) for row in rows]

    def count_reported(self) -> int:
        """Return the number of hidden jokes."""
        # Without a parameter, so that the database sees that its index fits.
        query = select(func.count()).select_from(jokes).where(text("report > 0"))
        with self._database.begin() as connection:
            return connection.execute(query).scalar_one()

    def restore(self, id: str) -> int:  # noqa: A002
        """Delete all reports of a joke, or raise an `UnknownJokeError`; return their number."""
        with self._database.begin(write=True) as connection:
            row = fetch_row(connection, id, lock=True)
            _delete_reports(connection, row)
            return int(row["report"])

    def restore_all(self, since: float = 0.0) -> int:
        """Delete the reports made since a time; return how many jokes are shown again."""
        recent = and_(votes.c.vote == "report", votes.c.voted_at >= since)
        query = (
            select(jokes)
            .where(jokes.c.id.in_(select(votes.c.joke_id).where(recent)))
            .order_by(jokes.c.id)
            .with_for_update()
        )
        with self._database.begin(write=True) as connection:
            rows = connection.execute(query).mappings().all()
            return sum(_delete_reports(connection, row, since) == 0 for row in rows)

    # Retention

    def prune(self) -> int:
        """Apply ``max_age_days`` and ``max_jokes``, and replace an old salt; count deleted jokes.

        Servers call this once an hour; `add` does it in small steps.
        """
        deleted = 0
        while batch := self._prune_batch():
            deleted += batch
        return deleted

    def _prune_when_due(self) -> None:
        self._prune_after_adds -= 1
        if self._prune_after_adds > 0 and time.monotonic() < self._prune_at:
            return
        full_batch = self._prune_batch() == _BATCH
        # Lets the store exceed its limit by 1%.
        self._prune_after_adds = 0 if full_batch else max(1, self._max_jokes // 100)
        self._prune_at = time.monotonic() + _PRUNE_SECONDS

    def _prune_batch(self) -> int:
        now = time.time()
        not_in_pool = jokes.c.pool_key.is_(None)
        with self._database.begin(write=True) as connection:
            if not self._database.lock(connection, "prune", wait=False):
                return 0  # Another process is doing it.
            _replace_old_salt(connection, now)
            ids: list[str] = []
            if self._max_age_days is not None:
                expired = jokes.c.created_at < now - self._max_age_days * _DAY_SECONDS
                query = select(jokes.c.id).where(not_in_pool, expired).limit(_BATCH)
                ids += connection.execute(query).scalars()
            count = connection.execute(select(func.count()).where(not_in_pool)).scalar_one()
            excess = min(count - self._max_jokes, _BATCH) - len(ids)
            if excess > 0:
                no_votes = jokes.c.up + jokes.c.down + jokes.c.report == 0
                oldest = (
                    select(jokes.c.id)
                    .where(not_in_pool, jokes.c.id.not_in(ids))
                    .order_by(no_votes.desc(), jokes.c.created_at)
                    .limit(excess)
                )
                ids += connection.execute(oldest).scalars()
            if ids:
                connection.execute(delete(jokes).where(jokes.c.id.in_(ids)))
            return len(ids)


def _choose_daily(connection: Connection, day: str) -> RowMapping | None:
    """Choose the joke of a day and record it; None if there is none to choose."""
    candidates = and_(visible(safe=True), or_(jokes.c.up > 0, jokes.c.pool_key.is_not(None)))
    used = exists().where(daily.c.joke_id == jokes.c.id)
    query = (
        select(jokes)
        .where(candidates, not_(used))
        .order_by(jokes.c.rating.desc(), jokes.c.picked.desc(), jokes.c.quality.desc())
        .order_by(func.random())
        .limit(1)
        .with_for_update(key_share=True)
    )
    row = connection.execute(query).mappings().first()
    if row is None:  # All have been jokes of the day; repeat the oldest.
        oldest = (
            select(jokes)
            .join(daily)
            .where(candidates, daily.c.day != day)
            .order_by(daily.c.day)
            .limit(1)
        )
        row = connection.execute(oldest).mappings().first()
    connection.execute(delete(daily).where(daily.c.day == day))
    if row is not None:
        connection.execute(insert(daily).values(day=day, joke_id=row["id"]))
        mark_told(connection, row)
    return row


def _update_counts(connection: Connection, row: RowMapping, counts: Votes) -> None:
    values = asdict(counts) | {"rating": counts.rating}
    connection.execute(update(jokes).where(jokes.c.id == row["id"]).values(values))


def _delete_reports(connection: Connection, row: RowMapping, since: float = 0.0) -> int:
    """Delete the reports of the joke of a row since a time; return how many are left."""
    doomed = and_(votes.c.vote == "report", votes.c.voted_at >= since)
    deleted = connection.execute(delete(votes).where(votes.c.joke_id == row["id"], doomed))
    left = replace(votes_from_row(row), report=int(row["report"]) - deleted.rowcount)
    _update_counts(connection, row, left)
    return left.report


def _replace_old_salt(connection: Connection, now: float) -> None:
    expired = salt.c.created_at < now - CLIENT_TTL_DAYS * _DAY_SECONDS
    new = {"value": secrets.token_bytes(32), "created_at": now}
    if connection.execute(update(salt).where(expired).values(new)).rowcount:
        # Nobody can match clients with these hashes any more.
        connection.execute(delete(heard))
