"""The pool: jokes that are ready to be told, to each client once.

Nothing here fails if the database is down: the pool then looks empty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    delete,
    exists,
    func,
    insert,
    not_,
    select,
    update,
)

from joker.core.errors import StoreDownError
from joker.core.joke import GeneratedJoke, Joke, punchline_key
from joker.generation.prompt import Prompt
from joker.store.database import Database
from joker.store.tables import (
    DIGEST_LENGTH,
    StoredJoke,
    check_category,
    hash_client,
    heard,
    joke_from_row,
    jokes,
    make_row,
    mark_told,
    sanitize,
    visible,
)

_BATCH = 1000


class Pool:
    """The pool of a `joker.store.Store`; beyond ``max_size`` jokes, the worst drafts go."""

    def __init__(self, database: Database, max_size: int) -> None:
        self._database = database
        self._max_size = max_size

    def add(
        self,
        joke: GeneratedJoke,
        *,
        model: str,
        quality: float = 0.0,
        categories: Collection[str] = (),
        safe: bool = True,
        picked: bool = False,
    ) -> StoredJoke | None:
        """Put a joke into the pool, with its quality, such as a critic's score, and its labels.

        If the pool is full, the draft that `take` would return last is removed; picked jokes never
        are. Returns None if the pool already has the punchline or is full of better jokes, or if
        the store is down.
        """
        row = make_row(joke, model, categories, safe)
        row |= {"told": False, "quality": quality, "picked": picked, "pool_key": _digest(joke)}
        try:
            with self._database.begin(write=True) as connection:
                self._database.lock(connection, "pool")
                duplicate = exists().where(jokes.c.pool_key == row["pool_key"])
                if connection.execute(select(duplicate)).scalar():
                    return None
                connection.execute(insert(jokes).values(row))
                if row["id"] in self._shrink(connection):
                    return None
        except StoreDownError:
            return None
        return joke_from_row(row)

    def take(self, client: str, **wanted: Any) -> StoredJoke | None:
        """Return a client's best joke, as `take_several` does, or None."""
        return next(iter(self.take_several(client, 1, **wanted)), None)

    def take_several(
        self,
        client: str,
        count: int,
        *,
        model: str | None = None,
        prompt: str = "",
        safe: bool = True,
        exclude_categories: Collection[str] = (),
    ) -> list[StoredJoke]:
        """Return the best jokes that a client has not heard, and record that it has heard them.

        Picked jokes come first, those with more 👎 than 👍 last, and others by quality; jokes of
        equal quality come in random order. With a prompt, only jokes that begin like it or are
        about its topic are returned; none matches a whole question. None are returned if the store
        is down.
        """
        conditions = [visible(safe=safe), jokes.c.pool_key.is_not(None)]
        if model is not None:
            conditions.append(jokes.c.model == sanitize(model))
        conditions += [
            not_(jokes.c.categories.like(f"%,{check_category(category)},%"))
            for category in exclude_categories
        ]
        taken: list[StoredJoke] = []
        with suppress(StoreDownError):
            if prompt:
                ids = self._find_matching(client, conditions, prompt)
                count = min(count, len(ids))
                conditions.append(jokes.c.id.in_(ids))
            # Each in its own transaction: locking several rows at a time could end in a deadlock.
            while len(taken) < count and (joke := self._take(client, conditions)):
                taken.append(joke)
        return taken

    def _find_matching(
        self, client: str, conditions: Sequence[ColumnElement[bool]], prompt: str
    ) -> list[str]:
        """Return the ids of the jokes that match a prompt, among the best `_BATCH`."""
        hint = Prompt.parse(prompt)
        if not hint.is_hint:
            return []
        with self._database.begin() as connection:
            unheard = _unheard(hash_client(connection, client))
            query = select(jokes.c.id, jokes.c.question, jokes.c.answer).where(*conditions, unheard)
            rows = connection.execute(_best_first(query).limit(_BATCH)).all()
        return [row.id for row in rows if hint.fits(Joke(row.question, row.answer))]

    def _take(self, client: str, conditions: Sequence[ColumnElement[bool]]) -> StoredJoke | None:
        with self._database.begin(write=True) as connection:
            hashed = hash_client(connection, client)
            self._database.lock(connection, f"client {hashed}")
            query = _best_first(select(jokes).where(*conditions, _unheard(hashed)))
            # Keeps other transactions from deleting it before it is recorded as heard.
            query = query.limit(1).with_for_update(read=True, key_share=True)
            row = connection.execute(query).mappings().first()
            if row is None:
                return None
            connection.execute(insert(heard).values(client=hashed, joke_id=row["id"]))
            mark_told(connection, row)
        return joke_from_row(row)

    def missing(self, candidates: Iterable[GeneratedJoke]) -> list[GeneratedJoke]:
        """Return the jokes whose punchline is not in the pool; none if the store is down."""
        by_key = {_digest(joke): joke for joke in candidates}
        query = select(jokes.c.pool_key).where(jokes.c.pool_key.in_(by_key))
        try:
            with self._database.begin() as connection:
                existing = set(connection.execute(query).scalars())
        except StoreDownError:
            return []
        return [joke for key, joke in by_key.items() if key not in existing]

    def size(self, *, untold: bool = False, model: str | None = None) -> int:
        """Return how many jokes can be told, or nobody has heard; 0 if the store is down."""
        conditions = [] if model is None else [jokes.c.model == sanitize(model)]
        if untold:
            conditions.append(not_(jokes.c.told))
        try:
            with self._database.begin() as connection:
                return self._size(connection, conditions)
        except StoreDownError:
            return 0

    def _size(self, connection: Connection, conditions: Sequence[ColumnElement[bool]] = ()) -> int:
        pooled = jokes.c.pool_key.is_not(None), visible(safe=False)
        return connection.execute(select(func.count()).where(*pooled, *conditions)).scalar_one()

    def _shrink(self, connection: Connection) -> set[str]:
        """Remove the worst drafts if the pool is too large; return their ids."""
        excess = self._size(connection) - self._max_size
        if excess <= 0:
            return set()
        drafts = select(jokes.c.id).where(
            jokes.c.pool_key.is_not(None), visible(safe=False), not_(jokes.c.picked)
        )
        ranked = connection.execute(_best_first(drafts)).scalars().all()
        worst = ranked[max(0, len(ranked) - min(excess, _BATCH)) :]
        removed = jokes.c.id.in_(worst)
        connection.execute(delete(jokes).where(removed, not_(jokes.c.told)))
        connection.execute(update(jokes).where(removed).values(pool_key=None))
        return set(worst)


def _unheard(hashed: str) -> ColumnElement[bool]:
    """Return the condition for jokes that the client with this hash has not heard."""
    return not_(exists().where(heard.c.client == hashed, heard.c.joke_id == jokes.c.id))


def _best_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(
        jokes.c.picked.desc(),
        jokes.c.down > jokes.c.up,
        jokes.c.quality.desc(),
        func.random(),
    )


def _digest(joke: GeneratedJoke) -> str:
    data = punchline_key(joke.answer).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=DIGEST_LENGTH // 2).hexdigest()
