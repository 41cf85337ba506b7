"""What the pool of every store promises."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from joker.core.errors import InputError, UnknownJokeError
from joker.store import Store
from tests.store.conftest import Backend, OpenStore
from tests.store.told import (
    PROCESSES,
    draft,
    numbered,
    run_processes,
    take_all,
    told,
)


def test_a_client_gets_each_joke_of_the_pool_once_the_best_first(store: Store) -> None:
    worst, best = draft(store, 1, quality=0.1), draft(store, 2, quality=0.9)
    picked = draft(store, 3, quality=0.0, picked=True)
    for client in ("ann", "bob"):
        taken = [store.pool.take(client) for _ in range(4)]
        assert [joke and joke.id for joke in taken] == [picked, best, worst, None]
    assert store.pool.size() == 3
    assert store.get(picked).picked


def test_a_disliked_joke_of_the_pool_comes_last(store: Store) -> None:
    disliked, other = draft(store, 1, quality=0.9), draft(store, 2, quality=0.1)
    store.vote(disliked, "bob", "down")
    taken = [store.pool.take("ann") for _ in range(2)]
    assert [joke and joke.id for joke in taken] == [other, disliked]


def test_equals_of_the_pool_come_in_any_order(store: Store) -> None:
    for number in range(20):
        draft(store, number)
    firsts = {joke.id for n in range(20) if (joke := store.pool.take(f"client {n}"))}
    assert len(firsts) > 1


def test_the_pool_leaves_out_what_a_client_does_not_want(store: Store) -> None:
    offensive = draft(store, 1, safe=False, categories=["racist"])
    dark = draft(store, 2, categories=["dark", "nsfw"])
    assert store.pool.take("ann", exclude_categories=["nsfw"]) is None
    assert store.pool.take("ann", exclude_categories=["racist"]) == store.get(dark)
    assert store.pool.take("ann") is None
    assert store.pool.take("ann", safe=False) == store.get(offensive)
    with pytest.raises(InputError):
        store.pool.take("ann", exclude_categories=["%"])


def test_a_prompt_gets_the_best_unheard_joke_of_the_pool_that_fits(store: Store) -> None:
    for number, (question, answer) in enumerate(
        [
            ("Why did the cat nap?", "It was dog-tired."),
            ("What do cats read?", "Mews papers."),
            ("Why did the  Catfish hide?", "It saw a boat."),
            ("What do you call a goat?", "A kid at heart."),
        ]
    ):
        store.pool.add(told(question, answer), model="tiny", quality=-number)

    def take(client: str, prompt: str) -> str | None:
        joke = store.pool.take(client, prompt=prompt)
        return joke.answer if joke else None

    topic = [take("ann", prompt) for prompt in ("a cat", "tell me a joke about cats", "cats")]
    assert topic == ["It was dog-tired.", "Mews papers.", None]
    start = [take("bob", "why did the cat") for _ in range(3)]
    assert start == ["It was dog-tired.", "It saw a boat.", None]
    assert take("cid", "What do you call a goat?") is None
    assert take("cid", "...") is None
    jokes = store.pool.take_several("cid", 2, prompt="What")
    assert [joke.answer for joke in jokes] == ["Mews papers.", "A kid at heart."]


def test_the_same_punchline_is_in_the_pool_once(store: Store) -> None:
    draft(store, 1)
    joke = numbered(1)
    shouted = told("What did another lamp say?", f" {joke.answer.upper()}\n")
    assert store.pool.add(joke, model="other") is None
    assert store.pool.add(shouted, model="other") is None
    assert store.pool.size() == 1


def test_a_full_pool_keeps_the_best_and_all_picked_ones(open_store: OpenStore) -> None:
    store = open_store(max_pool_size=3)
    picked = draft(store, 0, quality=-9, picked=True)
    weak, good = draft(store, 1, quality=1), draft(store, 2, quality=2)
    assert store.pool.add(numbered(3), model="tiny", quality=0.5) is None
    better = draft(store, 4, quality=3)
    taken = [store.pool.take("ann") for _ in range(4)]
    assert [joke and joke.id for joke in taken] == [picked, better, good, None]
    with pytest.raises(UnknownJokeError):  # nobody ever saw it
        store.get(weak)


def test_a_joke_that_somebody_heard_outlives_the_pool(open_store: OpenStore) -> None:
    store = open_store(max_pool_size=1)
    heard = draft(store, 1, quality=1)
    store.pool.take("ann")
    draft(store, 2, quality=2)
    assert store.pool.size() == 1
    assert store.get(heard).id == heard


def test_a_client_never_gets_a_joke_twice_from_many_threads(store: Store) -> None:
    jokes = {draft(store, number) for number in range(60)}
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: store.pool.take("ann"), range(80)))
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
                lambda n: store.pool.add(numbered(n % 30), model="tiny", quality=n % 30),
                range(90),
            )
        )
    taken = [store.pool.take("ann") for _ in range(11)]
    assert [joke and joke.question for joke in taken] == [
        *(numbered(n).question for n in range(29, 19, -1)),
        None,
    ]


def test_a_model_has_a_pool_of_its_own(store: Store) -> None:
    store.pool.add(numbered(1), model="mine", quality=1.0)
    store.pool.add(numbered(2), model="bundled", picked=True)
    assert store.pool.size(untold=True, model="mine") == 1
    taken = store.pool.take("ann", model="mine")
    assert taken is not None
    assert taken.model == "mine"
    assert store.pool.take("ann", model="mine") is None
    assert store.pool.size(untold=True, model="mine") == 0
    assert store.pool.size(untold=True) == 1
