"""What somebody who follows jokes sees of them while `joker.generation.teller` tells them."""

from __future__ import annotations

import pytest

from joker.core.fingerprints import Fingerprints
from joker.core.joke import GeneratedJoke, Joke, Sampling
from joker.engines.protocol import AbandonedError, GenerationListener
from joker.generation.teller import MissingJokesError, Teller
from tests.generation.stub import END, MARKER, StubEngine, ask, excited, good


class Audience(GenerationListener):
    """Remembers what it saw, and leaves when it has seen enough."""

    def __init__(self, patience: int = 1_000) -> None:
        self.drafts: list[tuple[int, str, str]] = []
        self.jokes: list[tuple[int, GeneratedJoke]] = []
        self._patience = patience

    def on_draft(self, index: int, question: str, answer: str) -> None:
        self.drafts.append((index, question, answer))

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:
        self.jokes.append((index, joke))

    def should_stop(self) -> bool:
        return len(self.jokes) >= self._patience


def test_a_single_candidate_is_shown_word_by_word() -> None:
    audience = Audience()
    Teller(StubEngine(lambda _: f" café is it?{MARKER}That one.{END}")).tell(
        ask("Which", seed=7), audience
    )
    assert audience.drafts == [
        (0, "Which", ""),
        (0, "Which café", ""),
        (0, "Which café is", ""),
        (0, "Which café is it?", ""),
        (0, "Which café is it?", "That"),
    ]


def test_nothing_is_shown_while_nobody_reads() -> None:
    class Absent(Audience):
        def wants_drafts(self) -> bool:
            return False

    audience = Absent()
    (told,) = Teller(StubEngine(good)).tell(ask("Which", seed=7), audience)
    assert audience.drafts == []
    assert audience.jokes == [(0, told)]


def test_nothing_is_shown_from_a_stop_on() -> None:
    audience = Audience()
    engine = StubEngine(lambda _: f" is it?{MARKER}That one of the two.{END}")
    (told,) = Teller(engine).tell(ask("Which", sampling=Sampling(stop=("of",))), audience)
    assert told.answer == "That one"
    assert {answer for _, _, answer in audience.drafts} == {"", "That", "That one"}


def test_nobody_sees_candidates_that_may_not_be_told() -> None:
    audience = Audience()
    told = Teller(StubEngine(excited)).tell(ask("Which", 2, seed=7, candidates=4), audience)
    assert audience.drafts == []
    assert audience.jokes == list(enumerate(told))


def test_what_the_list_flags_is_not_shown_in_safe_mode() -> None:
    engine = StubEngine(lambda _: f" is it?{MARKER}It is a genocidal and so on.{END}")
    safe, unsafe = Audience(), Audience()
    with pytest.raises(MissingJokesError):
        Teller(engine).tell(ask("Which", seed=7), safe)
    Teller(engine).tell(ask("Which", seed=7, safe=False), unsafe)
    assert {answer for _, _, answer in safe.drafts} == {"", "It", "It is", "It is a"}
    assert "It is a genocidal and so" in {answer for _, _, answer in unsafe.drafts}


def test_jokes_are_heard_as_soon_as_they_are_certain() -> None:
    spoilt = iter([True, False, False, False])
    engine = StubEngine(lambda r: " or" if next(spoilt) else good(r))
    audience = Audience()
    told = Teller(engine).tell(ask(count=3, seed=7), audience)
    assert audience.jokes == [(1, told[1]), (2, told[2]), (0, told[0])]


def test_a_joke_told_again_is_heard_at_the_end(sample_jokes: list[Joke]) -> None:
    known = Joke("Which number one", "Fine.")
    engine = StubEngine(lambda _: f" number one{MARKER}Fine.{END}")
    audience = Audience()
    teller = Teller(engine, fingerprints=Fingerprints.of([known, *sample_jokes]))
    told = teller.tell(ask("Which", 2, seed=7), audience)
    assert audience.jokes == list(enumerate(told))
    assert all(joke.original is False for joke in told)


def test_telling_ends_when_nobody_waits() -> None:
    engine = StubEngine(good)
    audience = Audience(patience=0)
    with pytest.raises(AbandonedError):
        Teller(engine).tell(ask(count=3), audience)
    assert not engine.batches
