"""Jokes as they come from generation, and what processes of a test do with a store."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from joker.core.joke import GeneratedJoke
from joker.store import Store

PROCESSES = 4


def told(
    question: str = "Why did the kettle blush?", answer: str = "It saw the teapot without its cosy."
) -> GeneratedJoke:
    """Return a joke as the teller returns it."""
    return GeneratedJoke(question, answer, seed=7, attempts=1, original=True, similarity=0.25)


def numbered(number: int) -> GeneratedJoke:
    """Return one of many different jokes."""
    return told(f"What did lamp number {number} say?", f"I shine by {number} candles.")


def add(store: Store, joke: GeneratedJoke | None = None, **options: Any) -> str:
    """Add a joke and return its id."""
    stored = store.add(joke or told(), model="tiny", **options)
    assert stored is not None
    return stored.id


def draft(store: Store, number: int, **options: Any) -> str:
    """Put one of many jokes into the pool and return its id."""
    stored = store.pool.add(numbered(number), model="tiny", **options)
    assert stored is not None
    return stored.id


def open_and_add(url: str, number: int) -> int:
    """Open a new database while others do, and add a joke."""
    store = Store(url, timeout_seconds=60)
    store.check()
    add(store, numbered(number))
    store.close()
    return store.failures


def vote_for_many(url: str, joke: str, first: int, count: int) -> int:
    """Vote as so many clients, twice each."""
    store = Store(url, timeout_seconds=60)
    for client in range(first, first + count):
        store.vote(joke, f"client {client}", "down")
        store.vote(joke, f"client {client}", "up")
    store.close()
    return store.failures


def take_all(url: str, client: str) -> list[str]:
    """Take what a client can get from the pool."""
    store = Store(url, timeout_seconds=60)
    taken = []
    while (joke := store.pool.take(client)) is not None:
        taken.append(joke.id)
    store.close()
    assert store.failures == 0
    return taken


def run_processes(function: Any, *arguments: list[Any]) -> list[Any]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        return list(pool.map(function, *arguments))
