"""What every store promises, whichever database it is in."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from joker.core.errors import InputError, StoreDownError, UnknownJokeError
from joker.store import KEEP_NOTHING, Store, StoredJoke, Vote, Votes, tables
from joker.store import store as store_module
from joker.store.feedback import read_feedback
from joker.store.store import PERIODS
from tests.store.conftest import Backend, OpenStore
from tests.store.told import (
    Told,
    add,
    draft,
    numbered,
    open_and_add,
    take_all,
    vote_for_many,
)

PROCESSES = 4
DAY = 86_400.0


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


class Clock:
    """Stands in for the store's `time`; a test moves it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(store_module, "time", clock)
    return clock


def run_processes(function: Any, *arguments: list[Any]) -> list[Any]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        return list(pool.map(function, *arguments))


# Jokes


def test_a_joke_comes_back_as_it_was_told(store: Store) -> None:
    before = time.time()
    added = store.add(Told(), model="tiny", categories=["dark", "nsfw"], safe=False)
    assert added is not None
    assert added == StoredJoke(
        id=added.id,
        question=Told().question,
        answer=Told().answer,
        details={"seed": 7, "original": True, "similarity": 0.25},
        model="tiny",
        prompt=None,
        categories=("dark", "nsfw"),
        safe=False,
        picked=False,
        created_at=added.created_at,
        votes=Votes(),
        hidden=False,
    )
    assert before <= added.created_at <= time.time()
    assert store.get(added.id) == added


def test_ids_are_short_and_never_the_same(store: Store) -> None:
    ids = {add(store) for _ in range(100)}
    assert len(ids) == 100
    assert {len(one) for one in ids} == {12}
    assert "".join(ids).isalnum()


def test_a_joke_outlives_the_store_that_added_it(shared: Backend, open_store: OpenStore) -> None:
    first = open_store()
    joke = add(first)
    first.close()
    assert open_store().get(joke).question == Told().question


def test_a_closed_store_opens_again_at_the_next_call(shared: Backend, store: Store) -> None:
    joke = add(store)
    store.close()
    assert store.get(joke).id == joke


@pytest.mark.parametrize(
    "text",
    [
        "Почему молчит чайник? 🫖",
        "为什么茶壶脸红？",
        "e\u0301 \u202eabc\u202c 👩\u200d🔬",
        "'; DROP TABLE jokes; -- %s :id {x} \\",
        "two\nlines",
        "x" * 100_000,
    ],
)
def test_any_text_comes_back_unchanged(store: Store, text: str) -> None:
    joke = store.get(add(store, Told(text, text)))
    assert (joke.question, joke.answer) == (text, text)


def test_what_no_database_holds_is_replaced(open_store: OpenStore) -> None:
    store = open_store(keep_prompts=True)
    joke = store.get(add(store, Told("a\0b\ud800c?", "d"), prompt="\0\udfff"))
    assert (joke.question, joke.prompt) == ("ab?c?", "?")
    assert store.failures == 0


@pytest.mark.parametrize(
    "id", ["", "x", "ABCDEFGHIJKL", "' OR 1=1 --", "ABCDEFGHIJK\0", "９" * 12, "x" * 10**6, "%"]
)
def test_an_id_that_is_none_is_unknown(store: Store, id: str) -> None:  # noqa: A002
    add(store)
    with pytest.raises(UnknownJokeError):
        store.get(id)
    with pytest.raises(UnknownJokeError):
        store.vote(id, "someone", "up")
    assert store.failures == 0


def test_prompts_are_kept_only_where_that_is_switched_on(open_store: OpenStore) -> None:
    quiet, curious = open_store(), open_store(keep_prompts=True)
    assert quiet.get(add(quiet, prompt="my boss")).prompt is None
    assert curious.get(add(curious, prompt="my boss")).prompt == "my boss"


# Votes


def test_a_client_has_one_vote_and_may_change_it(store: Store) -> None:
    joke, other = add(store), add(store, numbered(1))
    assert store.vote(joke, "ann", "up") == Votes(up=1)
    assert store.vote(joke, "ann", "up") == Votes(up=1)
    assert store.vote(joke, "ann", "down") == Votes(down=1)
    assert store.vote(joke, "bob", "up") == Votes(up=1, down=1)
    assert store.vote(joke, "bob", "report") == Votes(down=1, report=1)
    assert store.get(joke).votes == Votes(down=1, report=1)
    assert store.get(other).votes == Votes()


def test_a_vote_that_there_is_not_is_refused(store: Store) -> None:
    joke = add(store)
    with pytest.raises(InputError, match="must be up, down, report"):
        store.vote(joke, "ann", "sideways'; --")  # type: ignore[arg-type]
    assert store.get(joke).votes == Votes()


@pytest.mark.parametrize("client", ["", "::1", "\0\ud800", "x" * 10**6, "' OR '1'='1"])
def test_a_client_may_be_called_anything(store: Store, client: str) -> None:
    joke = add(store)
    store.vote(joke, client, "up")
    assert store.vote(joke, client, "down") == Votes(down=1)


def test_votes_of_threads_are_all_counted(store: Store) -> None:
    joke = add(store)

    def vote(number: int) -> None:
        for choice in ("up", "report", "down", "up"):
            store.vote(joke, f"client {number % 20}", choice)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(vote, range(40)))
    assert store.get(joke).votes == Votes(up=20)


@pytest.mark.integration
def test_votes_of_processes_are_all_counted(shared: Backend, store: Store) -> None:
    joke = add(store)
    firsts = [number * 20 for number in range(PROCESSES)]
    failures = run_processes(
        vote_for_many, [shared.url] * PROCESSES, [joke] * PROCESSES, firsts, [40] * PROCESSES
    )
    assert failures == [0] * PROCESSES
    assert store.get(joke).votes == Votes(up=20 * (PROCESSES + 1))


def test_no_address_is_in_the_database(store: Store) -> None:
    address = "203.0.113.77"
    joke = add(store)
    store.vote(joke, address, "up")
    draft(store, 1)
    store.pool_take(address)
    with store._database.begin() as connection:
        rows = [
            connection.execute(table.select()).all()
            for table in (tables.votes, tables.heard, tables.jokes)
        ]
    assert all(rows)
    assert address not in str(rows)


def test_two_databases_hash_a_client_differently(
    open_store: OpenStore, make_store: OpenStore
) -> None:
    here, there = open_store(), make_store(KEEP_NOTHING)
    for store in (here, there):
        store.vote(add(store), "ann", "up")

    def client(store: Store) -> Any:
        with store._database.begin() as connection:
            return connection.execute(tables.votes.select()).mappings().one()["client"]

    assert client(here) != client(there)


# Lists


def test_the_top_ranks_by_the_share_that_is_certain(store: Store) -> None:
    one_of_one, nine_of_ten, unloved, untouched = (add(store, numbered(n)) for n in range(4))
    store.vote(one_of_one, "0", "up")
    for client in range(10):
        store.vote(nine_of_ten, str(client), "up" if client else "down")
    store.vote(unloved, "0", "down")
    assert [joke.id for joke in store.top()] == [nine_of_ten, one_of_one]
    assert [joke.id for joke in store.top("ever", count=1)] == [nine_of_ten]
    assert untouched not in {joke.id for joke in store.top("ever")}


def test_the_top_of_a_period_has_only_jokes_with_votes_in_it(store: Store, clock: Clock) -> None:
    joke = add(store)
    store.vote(joke, "ann", "up")
    for days, expected in ((0, 4), (2, 3), (8, 2), (31, 1)):
        clock.ahead = days * DAY
        assert sum(bool(store.top(period)) for period in PERIODS) == expected
    store.vote(joke, "bob", "up")
    assert [one.id for one in store.top("day")] == [joke]


def test_offensive_jokes_are_in_a_list_only_if_asked_for(store: Store) -> None:
    joke = add(store, safe=False)
    store.vote(joke, "ann", "up")
    assert store.top() == []
    assert store.today() is None
    assert [one.id for one in store.top(safe=False)] == [joke]


def test_the_joke_of_the_day_is_the_same_for_everybody_and_another_tomorrow(
    open_store: OpenStore, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Calendar:
        day = 1

        @classmethod
        def now(cls, _: Any) -> datetime:
            return datetime(2026, 5, cls.day, tzinfo=UTC)

    monkeypatch.setattr(store_module, "datetime", Calendar)
    assert store.today() is None
    liked = add(store)
    store.vote(liked, "ann", "up")
    drafted = draft(store, 1)
    assert [store.today(), store.today()] == [store.get(liked)] * 2
    Calendar.day = 2
    assert store.today() == store.get(drafted)
    Calendar.day = 3  # nothing new: the oldest comes again
    assert store.today() == store.get(liked)


def test_a_reported_joke_of_the_day_gives_way(store: Store) -> None:
    first, second = draft(store, 1, quality=2), draft(store, 2, quality=1)
    assert store.today() == store.get(first)
    store.vote(first, "ann", "report")
    assert store.today() == store.get(second)
    store.vote(second, "ann", "report")
    assert store.today() is None


# The pool


def test_a_client_gets_each_joke_of_the_pool_once_the_best_first(store: Store) -> None:
    worst, best = draft(store, 1, quality=0.1), draft(store, 2, quality=0.9)
    picked = draft(store, 3, quality=0.0, picked=True)
    for client in ("ann", "bob"):
        taken = [store.pool_take(client) for _ in range(4)]
        assert [joke and joke.id for joke in taken] == [picked, best, worst, None]
    assert store.pool_size() == 3
    assert store.get(picked).picked


def test_a_disliked_joke_of_the_pool_comes_last(store: Store) -> None:
    disliked, other = draft(store, 1, quality=0.9), draft(store, 2, quality=0.1)
    store.vote(disliked, "bob", "down")
    taken = [store.pool_take("ann") for _ in range(2)]
    assert [joke and joke.id for joke in taken] == [other, disliked]


def test_equals_of_the_pool_come_in_any_order(store: Store) -> None:
    for number in range(20):
        draft(store, number)
    firsts = {joke.id for n in range(20) if (joke := store.pool_take(f"client {n}"))}
    assert len(firsts) > 1


def test_the_pool_leaves_out_what_a_client_does_not_want(store: Store) -> None:
    offensive = draft(store, 1, safe=False, categories=["racist"])
    dark = draft(store, 2, categories=["dark", "nsfw"])
    assert store.pool_take("ann", exclude_categories=["nsfw"]) is None
    assert store.pool_take("ann", exclude_categories=["racist"]) == store.get(dark)
    assert store.pool_take("ann") is None
    assert store.pool_take("ann", safe=False) == store.get(offensive)
    with pytest.raises(InputError):
        store.pool_take("ann", exclude_categories=["%"])


def test_the_same_joke_is_in_the_pool_once(store: Store) -> None:
    draft(store, 1)
    joke = numbered(1)
    shouted = Told(joke.question.upper(), f" {joke.answer}\n")
    assert store.pool_add(joke, model="other") is None
    assert store.pool_add(shouted, model="other") is None
    assert store.pool_size() == 1


def test_a_full_pool_keeps_the_best_and_all_picked_ones(open_store: OpenStore) -> None:
    store = open_store(max_pool_size=3)
    picked = draft(store, 0, quality=-9, picked=True)
    weak, good = draft(store, 1, quality=1), draft(store, 2, quality=2)
    assert store.pool_add(numbered(3), model="tiny", quality=0.5) is None
    better = draft(store, 4, quality=3)
    taken = [store.pool_take("ann") for _ in range(4)]
    assert [joke and joke.id for joke in taken] == [picked, better, good, None]
    with pytest.raises(UnknownJokeError):  # nobody ever saw it
        store.get(weak)


def test_a_joke_that_somebody_heard_outlives_the_pool(open_store: OpenStore) -> None:
    store = open_store(max_pool_size=1)
    heard = draft(store, 1, quality=1)
    store.pool_take("ann")
    draft(store, 2, quality=2)
    assert store.pool_size() == 1
    assert store.get(heard).id == heard


def test_a_client_never_gets_a_joke_twice_from_many_threads(store: Store) -> None:
    jokes = {draft(store, number) for number in range(60)}
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: store.pool_take("ann"), range(80)))
    counted = Counter(joke.id for joke in taken if joke)
    assert counted == dict.fromkeys(jokes, 1)


@pytest.mark.integration
def test_a_client_never_gets_a_joke_twice_from_many_processes(
    shared: Backend, store: Store
) -> None:
    jokes = {draft(store, number) for number in range(60)}
    clients = ["ann", "ann", "ann", "bob"]
    *anns, bob = run_processes(take_all, [shared.url] * PROCESSES, clients)
    assert Counter(joke for one in anns for joke in one) == dict.fromkeys(jokes, 1)
    assert Counter(bob) == dict.fromkeys(jokes, 1)


def test_threads_that_fill_the_pool_keep_its_bound(open_store: OpenStore) -> None:
    store = open_store(max_pool_size=10)
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: store.pool_add(numbered(n % 30), model="tiny", quality=n % 30),
                range(90),
            )
        )
    taken = [store.pool_take("ann") for _ in range(11)]
    assert [joke and joke.question for joke in taken] == [
        *(numbered(n).question for n in range(29, 19, -1)),
        None,
    ]


# Reports


def test_a_reported_joke_leaves_pool_and_lists_at_once_but_not_its_link(store: Store) -> None:
    joke = draft(store, 1)
    store.vote(joke, "ann", "up")
    assert [one.id for one in store.top()] == [joke]
    store.vote(joke, "bob", "report")
    assert store.top() == []
    assert store.pool_size() == 0
    assert store.pool_take("cid") is None
    assert store.pool_add(numbered(1), model="tiny") is None
    assert store.get(joke).hidden


def test_a_report_taken_back_shows_the_joke_again(store: Store) -> None:
    joke = draft(store, 1)
    store.vote(joke, "ann", "report")
    store.vote(joke, "ann", "up")
    assert store.pool_take("bob") == store.get(joke)


def test_so_many_reports_hide_as_the_setting_says(open_store: OpenStore) -> None:
    store = open_store(hide_after_reports=2)
    joke = draft(store, 1)
    store.vote(joke, "ann", "report")
    assert not store.get(joke).hidden
    assert store.pool_size() == 1
    store.vote(joke, "bob", "report")
    assert store.get(joke).hidden
    assert store.pool_size() == 0


# Retention


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
        rows = [store._row(numbered(n), "tiny", (), True) for n in range(2500)]
        connection.execute(tables.jokes.insert(), rows)
    clock.ahead = 2 * DAY
    assert store.prune() == 2500


def test_a_client_is_forgotten_after_a_while(open_store: OpenStore, clock: Clock) -> None:
    store = open_store(client_ttl_days=30)
    joke = draft(store, 1)
    store.pool_take("ann")
    store.vote(joke, "ann", "up")
    clock.ahead = 29 * DAY
    store.prune()
    assert store.vote(joke, "ann", "up") == Votes(up=1)
    assert store.pool_take("ann") is None
    clock.ahead = 31 * DAY
    store.prune()
    assert store.pool_take("ann") == store.get(joke)
    assert store.vote(joke, "ann", "up") == Votes(up=2)


# Outages


@pytest.fixture
def impatient(backend: Backend, open_store: OpenStore) -> Store:
    if not backend.shared:
        pytest.skip("a database in memory is never away")
    return open_store(patience_seconds=0.3, retry_seconds=0.0)


@pytest.mark.integration
def test_jokes_are_told_while_the_store_is_away_and_stored_when_it_is_back(
    backend: Backend, impatient: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store = impatient
    joke = add(store)
    backend.interrupt()
    try:
        with caplog.at_level(logging.WARNING, "joker.store"):
            assert store.add(Told(), model="tiny") is None
            assert store.pool_add(Told(), model="tiny") is None
            assert store.pool_take("ann") is None
            with pytest.raises(StoreDownError, match="the store is away"):
                store.vote(joke, "ann", "up")
        assert store.down
        assert store.failures == 4
        assert [record.message for record in caplog.records if "is away" in record.message] == [
            caplog.records[0].message
        ]
        assert "secret-word" not in caplog.text
    finally:
        backend.restore()
    assert store.vote(joke, "ann", "up") == Votes(up=1)
    assert not store.down
    assert "is back" in caplog.text
    assert store.get(add(store, numbered(1))).question == numbered(1).question


@pytest.mark.integration
def test_a_store_may_be_away_when_it_is_opened(backend: Backend, impatient: Store) -> None:
    backend.interrupt()
    try:
        assert impatient.add(Told(), model="tiny") is None
        with pytest.raises(StoreDownError):
            impatient.check()
    finally:
        backend.restore()
    assert impatient.get(add(impatient)).votes == Votes()


@pytest.mark.integration
def test_an_outage_costs_later_jokes_no_waiting(
    backend: Backend, open_store: OpenStore, shared: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(patience_seconds=0.3, retry_seconds=3600.0)
    add(store)
    backend.interrupt()
    try:
        assert store.add(Told(), model="tiny") is None
    finally:
        backend.restore()
    # It is back, but nobody asks it before the time has come.
    assert store.add(Told(), model="tiny") is None
    with pytest.raises(StoreDownError):
        store.top()
    store._database._retry_at = 0.0
    assert store.top() == []


# Feedback


def test_feedback_has_the_jokes_on_which_people_agree(store: Store) -> None:
    def voted(number: int, up: int, down: int, report: int = 0) -> str:
        joke = add(store, numbered(number))
        for client in range(up + down + report):
            vote: Vote = "up" if client < up else "down" if client < up + down else "report"
            store.vote(joke, str(client), vote)
        return numbered(number).question

    expected = {
        voted(0, up=4, down=0): 3,
        voted(1, up=2, down=1): 2,
        voted(2, up=0, down=2): 1,
        voted(3, up=0, down=4): 0,
        voted(4, up=9, down=0, report=1): 0,
    }
    voted(5, up=1, down=0)
    voted(6, up=3, down=3)
    voted(7, up=0, down=0)
    assert {row.question: row.score for row in read_feedback(store)} == expected
    assert len(list(read_feedback(store, min_votes=1))) == len(expected) + 1


# Opening


@pytest.mark.integration
def test_processes_may_open_a_new_database_at_once(shared: Backend, store: Store) -> None:
    assert run_processes(open_and_add, [shared.url] * 8, list(range(8))) == [0] * 8
    assert store.prune() == 0
    with store._database.begin() as connection:
        assert len(connection.execute(tables.jokes.select()).all()) == 8
        assert len(connection.execute(tables.salt.select()).all()) == 1
