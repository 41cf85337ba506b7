"""What every store promises of jokes, votes and lists, whichever database it is in."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

import joker.store
from joker.core.errors import InputError, UnknownJokeError
from joker.store import IN_MEMORY, Period, Store, StoredJoke, Vote, Votes, tables
from joker.store.votes import read_feedback
from tests.store.conftest import Backend, Clock, OpenStore
from tests.store.told import (
    PROCESSES,
    add,
    draft,
    numbered,
    run_processes,
    told,
    vote_for_many,
)

DAY = 86_400.0
COLUMNS = ("question", "answer", "model")


def test_a_joke_comes_back_as_it_was_told(store: Store) -> None:
    before = time.time()
    added = store.add(told(), model="tiny", categories=["dark", "nsfw"], safe=False)
    assert added is not None
    assert added == StoredJoke(
        id=added.id,
        question=told().question,
        answer=told().answer,
        details={name: value for name, value in asdict(told()).items() if name not in COLUMNS},
        model="tiny",
        prompt=None,
        categories=("dark", "nsfw"),
        safe=False,
        picked=False,
        created_at=added.created_at,
        votes=Votes(),
    )
    assert not added.hidden
    assert added.to_generated() == replace(told(), model="tiny")
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
    assert open_store().get(joke).question == told().question


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
    joke = store.get(add(store, told(text, text)))
    assert (joke.question, joke.answer) == (text, text)


def test_what_no_database_holds_is_replaced(open_store: OpenStore) -> None:
    store = open_store(keep_prompts=True)
    joke = store.get(add(store, told("a\0b\ud800c?", "d"), prompt="\0\udfff"))
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
    store.pool.take(address)
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
    here, there = open_store(), make_store(IN_MEMORY)
    for store in (here, there):
        store.vote(add(store), "ann", "up")

    def client(store: Store) -> Any:
        with store._database.begin() as connection:
            return connection.execute(tables.votes.select()).mappings().one()["client"]

    assert client(here) != client(there)


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
        assert sum(bool(store.top(period)) for period in get_args(Period)) == expected
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

    monkeypatch.setattr(joker.store, "datetime", Calendar)
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


def test_a_reported_joke_leaves_pool_and_lists_at_once_but_not_its_link(store: Store) -> None:
    joke = draft(store, 1)
    store.vote(joke, "ann", "up")
    assert [one.id for one in store.top()] == [joke]
    store.vote(joke, "bob", "report")
    assert store.top() == []
    assert store.pool.size() == 0
    assert store.pool.take("cid") is None
    assert store.pool.add(numbered(1), model="tiny") is None
    assert store.get(joke).hidden


def test_reported_jokes_are_listed_with_their_last_report_the_latest_first(
    store: Store, clock: Clock
) -> None:
    early, late, fine = draft(store, 1), add(store), draft(store, 2)
    assert store.reported() == []
    began = time.time()
    for joke, client, cast in (
        (late, "ann", "report"),
        (early, "bob", "report"),
        (late, "bob", "report"),
        (late, "cid", "up"),
        (fine, "ann", "down"),
    ):
        clock.ahead += 60
        store.vote(joke, client, cast)  # type: ignore[arg-type]
    found = store.reported()
    assert [joke for joke, _ in found] == [store.get(late), store.get(early)]
    assert [round((at - began) / 60) for _, at in found] == [3, 2]


def test_a_restored_joke_is_back_everywhere_and_keeps_its_other_votes(store: Store) -> None:
    joke = draft(store, 1)
    for client, cast in (("ann", "up"), ("bob", "report"), ("cid", "report")):
        store.vote(joke, client, cast)  # type: ignore[arg-type]
    assert store.restore(joke) == 2
    assert store.get(joke).votes == Votes(up=1)
    assert not store.get(joke).hidden
    assert store.reported() == []
    assert [one.id for one in store.top()] == [joke]
    assert store.pool.take("bob") == store.get(joke)
    assert store.restore(joke) == 0
    assert store.vote(joke, "bob", "report") == Votes(up=1, report=1)
    with pytest.raises(UnknownJokeError):
        store.restore("abcdefghijkl")


def test_reports_since_a_time_are_deleted_and_earlier_ones_stay(store: Store, clock: Clock) -> None:
    first, both, later = draft(store, 1), draft(store, 2), draft(store, 3)
    store.vote(first, "ann", "report")
    store.vote(both, "ann", "report")
    since = time.time() + clock.ahead + 30
    clock.ahead += 60
    for joke in (both, later):
        store.vote(joke, "bob", "report")
    store.vote(later, "cid", "up")
    assert store.count_reported() == 3
    assert store.restore_all(since + 60) == 0
    assert store.restore_all(since) == 1
    assert store.get(later).votes == Votes(up=1)
    assert store.get(both).votes == Votes(report=1)
    assert store.count_reported() == 2
    assert store.restore_all() == 2
    assert store.count_reported() == 0
    assert store.pool.size() == 3


def test_a_report_taken_back_shows_the_joke_again(store: Store) -> None:
    joke = draft(store, 1)
    store.vote(joke, "ann", "report")
    store.vote(joke, "ann", "up")
    assert store.pool.take("bob") == store.get(joke)


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
    assert {row.question: row.score for row in read_feedback(store, min_votes=2)} == expected
    assert len(list(read_feedback(store, min_votes=1))) == len(expected) + 1
