from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from joker.comedy.teller import Teller, UntoldError
from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.core.sampling import Sampling
from joker.core.tokenizer import EncodedJoke
from joker.engines import open_engine
from joker.engines.base import Completion, Engine, Request
from joker.jobs.job import JokeRequest, JokeResult
from joker.jobs.telling import TellerWork


class Told:
    """Remembers what work said."""

    def __init__(self, stopped: bool = False) -> None:
        self.jokes: dict[int, JokeResult] = {}
        self.parts: list[tuple[int, str, str]] = []
        self._stopped = stopped

    def partial(self, index: int, question: str, answer: str) -> None:
        self.parts.append((index, question, answer))

    def joke(self, index: int, joke: JokeResult) -> None:
        self.jokes[index] = joke

    def stopped(self) -> bool:
        return self._stopped


class OneAtATime:
    """An engine that fails when two threads call it at once."""

    def __init__(self, engine: Engine) -> None:
        self.tokenizer = engine.tokenizer
        self.calls = 0
        self._engine = engine
        self._busy = False

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        assert not self._busy
        self._busy = True
        self.calls += 1
        try:
            return self._engine.generate(requests)
        finally:
            self._busy = False

    def score(self, jokes: Sequence[EncodedJoke]) -> list[float]:
        assert not self._busy
        return self._engine.score(jokes)


def request(seed: int = 7, **sampling: float) -> JokeRequest:
    return JokeRequest("Why do", 2, Sampling(**sampling), seed, safe=True, candidates=1)  # type: ignore[arg-type]


def make_work(
    engine: Engine, tries: int = 5, fingerprints: Fingerprints | None = None
) -> TellerWork:
    return TellerWork(
        safe=Teller(engine, fingerprints=fingerprints),
        unsafe=Teller(engine, safe=False, fingerprints=fingerprints),
        tries=tries,
    )


@pytest.fixture
def engine(tiny_folder: ModelFolder) -> OneAtATime:
    return OneAtATime(open_engine(tiny_folder))


@pytest.fixture
def work(engine: OneAtATime) -> TellerWork:
    return make_work(engine)


def test_jokes_are_told_and_reported_alike(work: TellerWork) -> None:
    told = Told()
    jokes = work(request(), told)
    assert [told.jokes[0], told.jokes[1]] == jokes
    assert jokes[0].seed == 7
    assert all(joke.question.startswith("Why do") for joke in jokes)


def test_a_joke_of_the_training_data_is_recognised(
    engine: OneAtATime, sample_jokes: list[Joke]
) -> None:
    for known, original in ((sample_jokes, False), ([], True)):
        told = make_work(engine, fingerprints=Fingerprints.of(known))(request(), Told())
        assert {joke.original for joke in told} == {original}
        assert all((joke.similarity == 1.0) is not original for joke in told)
    assert make_work(engine)(request(), Told())[0].original is None


def test_of_several_candidates_one_is_told(work: TellerWork, engine: OneAtATime) -> None:
    told = work(replace(request(temperature=1.5), candidates=4), Told())
    assert len(told) == 2


def test_many_threads_share_an_engine_that_takes_one_call(work: TellerWork) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda seed: work(request(seed), Told()), [7, 7, 8, 7]))
    assert results[0] == results[1] == results[3]


def test_nothing_is_asked_of_the_engine_once_nobody_waits(
    work: TellerWork, engine: OneAtATime
) -> None:
    assert work(request(), Told(stopped=True)) == []
    assert engine.calls == 0


def test_jokes_told_before_the_tries_ran_out_are_reported(engine: OneAtATime) -> None:
    work = make_work(engine, tries=1)
    for seed in range(200):
        told, untold = Told(), None
        try:
            work(request(seed, temperature=2.5, top_k=0, top_p=1.0), told)
        except UntoldError as error:
            untold = error
        if untold and untold.told:
            assert len(told.jokes) == len(untold.told) == 1
            assert told.jokes[0].question == untold.told[0].joke.question
            return
    pytest.fail("no seed told one joke of two")
