"""How long every store keeps what, and what it does while its database is away."""

from __future__ import annotations

import logging

import pytest

from joker.core.errors import StoreDownError, UnknownJokeError
from joker.store import Store, Votes, tables
from joker.store.tables import make_row
from tests.store.conftest import Backend, Clock, OpenStore
from tests.store.told import (
    add,
    draft,
    numbered,
    open_and_add,
    run_processes,
    told,
)

DAY = 86_400.0


def test_jokes_leave_with_their_votes_when_they_are_too_old(
    open_store: OpenStore, clock: Clock
) -> None:
    store = open_store(max_age_days=10)
    old, pooled = add(store), draft(store, 1)
    store.vote(old, "ann", "up")
    clock.ahead = 9 * DAY
    young = add(store, numbered(2))
    assert store.prune() == 0
    clock.ahead = 11 * DAY
    assert store.prune() == 1
    with pytest.raises(UnknownJokeError):
        store.get(old)
    assert [store.get(young).id, store.get(pooled).id] == [young, pooled]
    with store._database.begin() as connection:
        assert connection.execute(tables.votes.select()).all() == []


def test_adding_alone_deletes_what_is_too_old(open_store: OpenStore, clock: Clock) -> None:
    store = open_store(max_age_days=10)
    old = add(store)
    clock.ahead = 11 * DAY
    add(store)
    with pytest.raises(UnknownJokeError):
        store.get(old)


def test_too_many_jokes_make_room_those_without_votes_first(open_store: OpenStore) -> None:
    store = open_store(max_jokes=50)
    liked = add(store, numbered(0))
    store.vote(liked, "ann", "up")
    pooled = draft(store, 1)
    ids = [add(store, numbered(n)) for n in range(2, 100)]
    store.prune()
    kept = set()
    for joke in ids:
        try:
            kept.add(store.get(joke).id)
        except UnknownJokeError:
            continue
    assert kept == set(ids[-49:])
    assert [store.get(liked).id, store.get(pooled).id] == [liked, pooled]


def test_more_jokes_than_one_batch_are_deleted(open_store: OpenStore, clock: Clock) -> None:
    store = open_store(max_age_days=1)
    with store._database.begin(write=True) as connection:
        rows = [make_row(numbered(n), "tiny", (), True) for n in range(2500)]
        connection.execute(tables.jokes.insert(), rows)
    clock.ahead = 2 * DAY
    assert store.prune() == 2500


def test_a_client_is_forgotten_after_a_while(store: Store, clock: Clock) -> None:
    joke = draft(store, 1)
    store.pool.take("ann")
    store.vote(joke, "ann", "up")
    clock.ahead = 89 * DAY
    store.prune()
    assert store.vote(joke, "ann", "up") == Votes(up=1)
    assert store.pool.take("ann") is None
    clock.ahead = 91 * DAY
    store.prune()
    assert store.pool.take("ann") == store.get(joke)
    assert store.vote(joke, "ann", "up") == Votes(up=2)


@pytest.fixture
def impatient(backend: Backend, open_store: OpenStore) -> Store:
    if not backend.shared:
        pytest.skip("a database in memory is never away")
    return open_store(timeout_seconds=0.3, retry_seconds=0.0)


@pytest.mark.integration
def test_jokes_are_told_while_the_store_is_away_and_stored_when_it_is_back(
    backend: Backend, impatient: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store = impatient
    joke = add(store)
    backend.interrupt()
    try:
        with caplog.at_level(logging.WARNING, "joker.store"):
            assert store.add(told(), model="tiny") is None
            assert store.pool.add(told(), model="tiny") is None
            assert store.pool.take("ann") is None
            with pytest.raises(StoreDownError, match="the store is down"):
                store.vote(joke, "ann", "up")
        assert store.down
        assert store.failures == 4
        assert [record.message for record in caplog.records if "is down" in record.message] == [
            caplog.records[0].message
        ]
        assert "secret-word" not in caplog.text
    finally:
        backend.restore()
    assert store.vote(joke, "ann", "up") == Votes(up=1)
    assert not store.down
    assert "is up again" in caplog.text
    assert store.get(add(store, numbered(1))).question == numbered(1).question


@pytest.mark.integration
def test_a_store_may_be_away_when_it_is_opened(backend: Backend, impatient: Store) -> None:
    backend.interrupt()
    try:
        assert impatient.add(told(), model="tiny") is None
        with pytest.raises(StoreDownError):
            impatient.check()
    finally:
        backend.restore()
    assert impatient.get(add(impatient)).votes == Votes()


@pytest.mark.integration
def test_an_outage_costs_later_jokes_no_waiting(
    backend: Backend, open_store: OpenStore, shared: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(timeout_seconds=0.3, retry_seconds=3600.0)
    add(store)
    backend.interrupt()
    try:
        assert store.add(told(), model="tiny") is None
    finally:
        backend.restore()
    # It is back, but nobody asks it before the time has come.
    assert store.add(told(), model="tiny") is None
    with pytest.raises(StoreDownError):
        store.top()
    store._database._retry_at = 0.0
    assert store.top() == []


@pytest.mark.integration
def test_processes_may_open_a_new_database_at_once(shared: Backend, store: Store) -> None:
    assert run_processes(open_and_add, [shared.url] * 8, list(range(8))) == [0] * 8
    assert store.prune() == 0
    with store._database.begin() as connection:
        assert len(connection.execute(tables.jokes.select()).all()) == 8
        assert len(connection.execute(tables.salt.select()).all()) == 1
