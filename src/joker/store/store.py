"""The store: jokes that were told, votes on them, and a pool of jokes that wait to be told.

Calls block for a millisecond or less, or for as long as the database is given patience. The
command line and workers call them directly; asynchronous servers through `asyncio.to_thread`,
since SQLite's driver has no other way, and SQLAlchemy's asynchronous half would only hide
the same threads.

What telling a joke needs (`Store.add`, `Store.pool_take`, `Store.pool_add`, `Store.pool_size`)
never fails because the database is away: the joke is told without it. What people ask of the
store itself raises `StoreDownError` then.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import Field, asdict, dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Protocol, get_args

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from joker.core.errors import InputError, StoreDownError, UnknownJokeError
from joker.store.database import Database, default_database
from joker.store.tables import DIGEST_LENGTH, ID_LENGTH, daily, heard, jokes, salt, votes
from joker.store.votes import VOTES, Vote, Votes

Period = Literal["day", "week", "month", "ever"]
PERIODS: tuple[Period, ...] = get_args(Period)

DAY_SECONDS = 86_400.0
_PERIOD_DAYS = {"day": 1, "week": 7, "month": 30}
_MAX_JOKES_ON_DISK = 1_000_000
_MAX_JOKES_IN_MEMORY = 10_000
_BATCH = 1000
_PRUNE_SECONDS = 3600.0
_ID_SIGNS = string.ascii_letters + string.digits
_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_ID = re.compile(rf"[A-Za-z0-9]{{{ID_LENGTH}}}")
_WORD = re.compile(r"[A-Za-z0-9_-]+")


class Told(Protocol):
    """A joke as generation returns it: a dataclass with a question and an answer.

    Its other fields must be values that JSON can hold.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def question(self) -> str:
        """The set-up."""

    @property
    def answer(self) -> str:
        """The punchline."""


@dataclass(frozen=True, slots=True)
class StoredJoke:
    """A joke in the store.

    Attributes:
        id: Twelve letters and digits that nobody can guess; stands in links.
        question: The set-up.
        answer: The punchline.
        details: The other fields of the joke that was added, such as its seed; jokes added by
            other versions of this package may have others.
        model: Which model generated it.
        prompt: What it was asked for with; None unless prompts are kept.
        categories: What moderation flagged it for.
        safe: Whether moderation lets it pass in safe mode.
        picked: Whether readers picked it for the pool that comes with the package.
        created_at: When it was added, in seconds since 1970.
        votes: The votes on it.
        hidden: Whether so many clients reported it that it is in neither pool nor lists; only
            `Store.get` returns it.
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
    hidden: bool


class Store:
    """Keeps jokes and votes in SQLite or PostgreSQL; threads and processes may share it.

    Nothing is opened before the first call. Clients are any text that tells one from
    another, such as an address; only a salted hash of it is stored. The salt is made in the
    database and replaced after ``client_ttl_days``: from then on nobody can find out whose a
    vote was, a client may vote on an old joke again, and hear it again.

    Args:
        database: Address, see `joker.store.database.Database`; by default a SQLite file in the
            user's data folder.
        keep_prompts: Store what jokes were asked for with.
        max_age_days: Jokes are deleted after so long, with their votes; None keeps them.
        max_jokes: From here on the oldest jokes are deleted, those without votes first; by
            default a million, or ten thousand in memory.
        max_pool_size: From here on a better draft replaces the worst one in the pool.
        hide_after_reports: Reports from which a joke is hidden.
        client_ttl_days: How long one client is recognized as the same.
        patience_seconds: How long a call waits for a connection or a lock.
        retry_seconds: After a failure, calls fail at once for so long.

    Jokes in the pool are never deleted by age or number; `max_pool_size` bounds them.

    Raises:
        ConfigError: If the address cannot be used.
        MissingPartError: If PostgreSQL is asked for and psycopg is not installed.
    """

    def __init__(
        self,
        database: str | None = None,
        *,
        keep_prompts: bool = False,
        max_age_days: float | None = None,
        max_jokes: int | None = None,
        max_pool_size: int = 1000,
        hide_after_reports: int = 1,
        client_ttl_days: float = 90.0,
        patience_seconds: float = 5.0,
        retry_seconds: float = 5.0,
    ) -> None:
        self._database = Database(
            database or default_database(),
            patience_seconds=patience_seconds,
            retry_seconds=retry_seconds,
        )
        self._keep_prompts = keep_prompts
        self._max_age_days = max_age_days
        if max_jokes is None:
            max_jokes = _MAX_JOKES_IN_MEMORY if self._database.in_memory else _MAX_JOKES_ON_DISK
        self._max_jokes = max_jokes
        self._max_pool_size = max_pool_size
        self._hide_after_reports = hide_after_reports
        self._client_ttl_days = client_ttl_days
        self._prune_after_adds = 0
        self._prune_at = 0.0

    def __str__(self) -> str:
        """Return the database's address without its password."""
        return str(self._database)

    @property
    def down(self) -> bool:
        """Whether the database was away when last asked."""
        return self._database.down

    @property
    def failures(self) -> int:
        """How many calls found the database away or failing, for metrics."""
        return self._database.failures

    def check(self) -> None:
        """Connect, and create or migrate the tables.

        Raises:
            StoreDownError: If the database cannot be used; the message says why.
        """
        with self._database.begin(write=True):
            pass

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    # Jokes

    def add(
        self,
        joke: Told,
        *,
        model: str,
        prompt: str | None = None,
        categories: Collection[str] = (),
        safe: bool = True,
        key: str | None = None,
    ) -> StoredJoke | None:
        """Store a joke that was told.

        Args:
            joke: The joke.
            model: Which model generated it.
            prompt: What it was asked for with; dropped unless prompts are kept.
            categories: What moderation flagged it for.
            safe: Whether moderation lets it pass in safe mode.
            key: The same key again is the same joke, which is stored once; the id follows from it,
                so it must be hard to guess.

        Returns:
            The joke with its id, or None if the store is away.
        """
        row = self._row(joke, model, categories, safe)
        row["prompt"] = _storable(prompt) if prompt and self._keep_prompts else None
        if key is not None:
            row["id"] = _id_of(key)
        try:
            with self._database.begin(write=True) as connection:
                insert_once = _INSERTS[connection.dialect.name](jokes).on_conflict_do_nothing()
                if not connection.execute(insert_once.values(row)).rowcount:
                    return self._read(_row_of(connection, row["id"]))
        except StoreDownError:
            return None
        with suppress(StoreDownError):
            self._prune_when_due()
        return self._read(row)

    def get(self, id: str) -> StoredJoke:  # noqa: A002
        """Return a joke, hidden or not.

        Raises:
            UnknownJokeError: If there is none with this id.
            StoreDownError: If the store is away.
        """
        with self._database.begin() as connection:
            return self._read(_row_of(connection, id))

    def top(
        self, period: Period = "week", count: int = 10, *, safe: bool = True
    ) -> list[StoredJoke]:
        """Return the best jokes of those that got a vote in the last day, week or month.

        Best is `Votes.rating`, a bound of the share of clients who like a joke. Hidden jokes
        and jokes that nobody likes are left out, offensive ones if ``safe``.

        Raises:
            StoreDownError: If the store is away.
        """
        chosen = and_(self._shown(safe=safe), jokes.c.up > 0)
        if period != "ever":
            since = time.time() - _PERIOD_DAYS[period] * DAY_SECONDS
            recent = select(votes.c.joke_id).where(votes.c.voted_at >= since)
            chosen = and_(chosen, jokes.c.id.in_(recent))
        query = (
            select(jokes)
            .where(chosen)
            .order_by(jokes.c.rating.desc(), jokes.c.up.desc(), jokes.c.created_at.desc())
            .limit(count)
        )
        with self._database.begin() as connection:
            return [self._read(row) for row in connection.execute(query).mappings()]

    def today(self) -> StoredJoke | None:
        """Return the joke of the day (UTC), the same for everybody; None if there is none yet.

        It is chosen at the first call of the day: the best of the jokes that are liked or in the
        pool and were not the joke of another day, never an offensive one. If it is reported,
        another replaces it.

        Raises:
            StoreDownError: If the store is away.
        """
        day = datetime.now(UTC).date().isoformat()
        shown = self._shown(safe=True)
        chosen = select(jokes).join(daily).where(daily.c.day == day, shown)
        with self._database.begin() as connection:
            row = connection.execute(chosen).mappings().first()
        if row is None:
            with self._database.begin(write=True) as connection:
                self._database.lock(connection, "today")
                row = connection.execute(chosen).mappings().first() or self._choose(connection, day)
        return self._read(row) if row else None

    def _choose(self, connection: Connection, day: str) -> RowMapping | None:
        """Make a joke the one of the day."""
        candidates = and_(
            self._shown(safe=True), or_(jokes.c.up > 0, jokes.c.pool_key.is_not(None))
        )
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
        if row is None:  # all have been: the one whose day is longest ago comes again
            again = (
                select(jokes)
                .join(daily)
                .where(candidates, daily.c.day != day)
                .order_by(daily.c.day)
                .limit(1)
            )
            row = connection.execute(again).mappings().first()
        connection.execute(delete(daily).where(daily.c.day == day))
        if row is not None:
            connection.execute(insert(daily).values(day=day, joke_id=row["id"]))
            _mark_told(connection, row)
        return row

    # Votes

    def vote(self, id: str, client: str, vote: Vote) -> Votes:  # noqa: A002
        """Cast a client's vote on a joke; a later one replaces it.

        Returns:
            All votes on the joke.

        Raises:
            InputError: If there is no such vote.
            UnknownJokeError: If there is no such joke.
            StoreDownError: If the store is away.
        """
        if vote not in VOTES:
            raise InputError(f"a vote must be {', '.join(VOTES)}, not {str(vote)[:20]!r}")
        with self._database.begin(write=True) as connection:
            # Holding the joke's row, others who vote on it wait.
            row = _row_of(connection, id, lock=True)
            key = {"joke_id": row["id"], "client": self._hash(connection, client)}
            same = and_(*(votes.c[name] == value for name, value in key.items()))
            old = connection.execute(select(votes.c.vote).where(same)).scalar()
            counts = _votes(row)
            if old == vote:
                return counts
            values = {"vote": vote, "voted_at": time.time()}
            if old is None:
                connection.execute(insert(votes).values(key | values))
            else:
                connection.execute(update(votes).where(same).values(values))
            counts = counts.changed(old, vote)
            connection.execute(
                update(jokes)
                .where(jokes.c.id == row["id"])
                .values(up=counts.up, down=counts.down, report=counts.report, rating=counts.rating)
            )
        return counts

    def voted(self) -> Iterator[StoredJoke]:
        """Yield all jokes that have votes, hidden ones too, the oldest first.

        Raises:
            StoreDownError: If the store is away.
        """
        query = (
            select(jokes)
            .where(jokes.c.up + jokes.c.down + jokes.c.report > 0)
            .order_by(jokes.c.created_at, jokes.c.id)
            .execution_options(yield_per=1000)
        )
        with self._database.begin() as connection:
            for row in connection.execute(query).mappings():
                yield self._read(row)

    # The pool

    def pool_add(
        self,
        joke: Told,
        *,
        model: str,
        quality: float = 0.0,
        categories: Collection[str] = (),
        safe: bool = True,
        picked: bool = False,
    ) -> StoredJoke | None:
        """Put a joke into the pool, from which `pool_take` tells it to every client once.

        A full pool makes room: the draft leaves that `pool_take` would take last. Picked jokes
        never leave.

        Args:
            joke: The joke.
            model: Which model generated it.
            quality: How good it is against others of the pool, such as a critic's score.
            categories: What moderation flagged it for.
            safe: Whether moderation lets it pass in safe mode.
            picked: Whether readers picked it.

        Returns:
            The joke with its id; None if the same joke is there already, if the pool is
            full of better ones, or if the store is away.
        """
        row = self._row(joke, model, categories, safe)
        row |= {"told": False, "quality": quality, "picked": picked, "pool_key": _digest(joke)}
        try:
            with self._database.begin(write=True) as connection:
                self._database.lock(connection, "pool")
                same = exists().where(jokes.c.pool_key == row["pool_key"])
                if connection.execute(select(same)).scalar():
                    return None
                connection.execute(insert(jokes).values(row))
                if row["id"] in self._shrink_pool(connection):
                    return None
        except StoreDownError:
            return None
        return self._read(row)

    def pool_take(
        self, client: str, *, safe: bool = True, exclude_categories: Collection[str] = ()
    ) -> StoredJoke | None:
        """Return the best joke of the pool that a client has not had, and remember that it has.

        Picked jokes come first, those with more 👎 than 👍 last, others by quality; equals in
        any order.

        Args:
            client: Who asks.
            safe: Leave out offensive jokes.
            exclude_categories: Leave out jokes that moderation flagged for one of these.

        Returns:
            None if the client has had them all, or if the store is away.
        """
        chosen = [self._shown(safe=safe), jokes.c.pool_key.is_not(None)]
        chosen += [
            not_(jokes.c.categories.like(f"%,{_word(category)},%"))
            for category in exclude_categories
        ]
        try:
            with self._database.begin(write=True) as connection:
                hashed = self._hash(connection, client)
                self._database.lock(connection, f"client {hashed}")
                had = exists().where(heard.c.client == hashed, heard.c.joke_id == jokes.c.id)
                query = _best_first(select(jokes).where(*chosen, not_(had)))
                # Nobody may delete it before it is noted as heard.
                query = query.limit(1).with_for_update(read=True, key_share=True)
                row = connection.execute(query).mappings().first()
                if row is None:
                    return None
                connection.execute(insert(heard).values(client=hashed, joke_id=row["id"]))
                _mark_told(connection, row)
        except StoreDownError:
            return None
        return self._read(row)

    def pool_size(self) -> int:
        """Return how many jokes of the pool can be told; 0 if the store is away."""
        try:
            with self._database.begin() as connection:
                return self._pool_size(connection)
        except StoreDownError:
            return 0

    def _pool_size(self, connection: Connection) -> int:
        counted = select(func.count()).where(jokes.c.pool_key.is_not(None), self._shown(safe=False))
        return connection.execute(counted).scalar_one()

    def _shrink_pool(self, connection: Connection) -> set[str]:
        """Remove the worst drafts while the pool is too large; return the ids of these."""
        excess = self._pool_size(connection) - self._max_pool_size
        if excess <= 0:
            return set()
        drafts = select(jokes.c.id).where(
            jokes.c.pool_key.is_not(None), self._shown(safe=False), not_(jokes.c.picked)
        )
        better = connection.execute(_best_first(drafts)).scalars().all()
        worst = better[max(0, len(better) - min(excess, _BATCH)) :]
        removed = jokes.c.id.in_(worst)
        connection.execute(delete(jokes).where(removed, not_(jokes.c.told)))
        connection.execute(update(jokes).where(removed).values(pool_key=None))
        return set(worst)

    # Retention

    def prune(self) -> int:
        """Delete what is too old or too much, and replace the salt when its time has come.

        `add` calls it now and then, a thousand jokes at a time; a server that is rarely
        asked may call it once an hour.

        Returns:
            The number of jokes deleted.

        Raises:
            StoreDownError: If the store is away.
        """
        deleted = 0
        while batch := self._prune_batch():
            deleted += batch
        return deleted

    def _prune_when_due(self) -> None:
        self._prune_after_adds -= 1
        if self._prune_after_adds > 0 and time.monotonic() < self._prune_at:
            return
        more = self._prune_batch() == _BATCH
        # At most a hundredth of the jokes is too much.
        self._prune_after_adds = 0 if more else max(1, self._max_jokes // 100)
        self._prune_at = time.monotonic() + _PRUNE_SECONDS

    def _prune_batch(self) -> int:
        now = time.time()
        outside = jokes.c.pool_key.is_(None)
        with self._database.begin(write=True) as connection:
            if not self._database.lock(connection, "prune", wait=False):
                return 0  # another process is at it
            self._replace_salt(connection, now)
            doomed: list[str] = []
            if self._max_age_days is not None:
                old = jokes.c.created_at < now - self._max_age_days * DAY_SECONDS
                aged = select(jokes.c.id).where(outside, old).limit(_BATCH)
                doomed += connection.execute(aged).scalars()
            count = connection.execute(select(func.count()).where(outside)).scalar_one()
            excess = min(count - self._max_jokes, _BATCH) - len(doomed)
            if excess > 0:
                no_votes = jokes.c.up + jokes.c.down + jokes.c.report == 0
                oldest = (
                    select(jokes.c.id)
                    .where(outside, jokes.c.id.not_in(doomed))
                    .order_by(no_votes.desc(), jokes.c.created_at)
                    .limit(excess)
                )
                doomed += connection.execute(oldest).scalars()
            if doomed:
                connection.execute(delete(jokes).where(jokes.c.id.in_(doomed)))
            return len(doomed)

    def _replace_salt(self, connection: Connection, now: float) -> None:
        expired = salt.c.created_at < now - self._client_ttl_days * DAY_SECONDS
        fresh = {"value": secrets.token_bytes(32), "created_at": now}
        if connection.execute(update(salt).where(expired).values(fresh)).rowcount:
            # Nobody is any more who heard these.
            connection.execute(delete(heard))

    # Rows

    def _row(
        self, joke: Told, model: str, categories: Collection[str], safe: bool
    ) -> dict[str, Any]:
        details = asdict(joke)
        return {
            "id": "".join(secrets.choice(_ID_SIGNS) for _ in range(ID_LENGTH)),
            "question": _storable(details.pop("question")),
            "answer": _storable(details.pop("answer")),
            "details": details,
            "model": _storable(model),
            "prompt": None,
            "categories": tuple(map(_word, categories)),
            "safe": safe,
            "created_at": time.time(),
            "picked": False,
            "up": 0,
            "down": 0,
            "report": 0,
        }

    def _read(self, row: Mapping[str, Any] | RowMapping) -> StoredJoke:
        return StoredJoke(
            id=row["id"],
            question=row["question"],
            answer=row["answer"],
            details=row["details"],
            model=row["model"],
            prompt=row["prompt"],
            categories=row["categories"],
            safe=row["safe"],
            picked=row["picked"],
            created_at=row["created_at"],
            votes=_votes(row),
            hidden=row["report"] >= self._hide_after_reports,
        )

    def _shown(self, *, safe: bool) -> ColumnElement[bool]:
        """Return the condition of jokes that lists and the pool may show."""
        unreported = jokes.c.report < self._hide_after_reports
        return and_(unreported, jokes.c.safe) if safe else unreported

    def _hash(self, connection: Connection, client: str) -> str:
        """Return what stands for a client; only this database can compute it."""
        key = connection.execute(select(salt.c.value)).scalar_one()
        data = client.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, key=key, digest_size=DIGEST_LENGTH // 2).hexdigest()


def _row_of(connection: Connection, id: str, *, lock: bool = False) -> RowMapping:  # noqa: A002
    """Return a joke's row.

    Raises:
        UnknownJokeError: If there is none.
    """
    row = None
    if _ID.fullmatch(id):
        query = select(jokes).where(jokes.c.id == id)
        row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise UnknownJokeError("there is no such joke, or it has been deleted")
    return row


def _id_of(key: str) -> str:
    """Return the id of the joke with this key."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    number = int.from_bytes(digest)
    signs = []
    for _ in range(ID_LENGTH):
        number, sign = divmod(number, len(_ID_SIGNS))
        signs.append(_ID_SIGNS[sign])
    return "".join(signs)


def _mark_told(connection: Connection, row: RowMapping) -> None:
    if not row["told"]:
        connection.execute(update(jokes).where(jokes.c.id == row["id"]).values(told=True))


def _best_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(
        jokes.c.picked.desc(),
        jokes.c.down > jokes.c.up,
        jokes.c.quality.desc(),
        func.random(),
    )


def _votes(row: Mapping[str, Any] | RowMapping) -> Votes:
    return Votes(row["up"], row["down"], row["report"])


def _digest(joke: Told) -> str:
    """Return the same text for jokes that differ only in case and white space."""
    words = " ".join(f"{joke.question} {joke.answer}".casefold().split())
    data = words.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=DIGEST_LENGTH // 2).hexdigest()


def _word(category: str) -> str:
    if not _WORD.fullmatch(category):
        raise InputError(f"a category must be a word, not {category[:20]!r}")
    return category


def _storable(text: str) -> str:
    """Return a text without what a database cannot hold: NUL and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
