from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from joker.core.fingerprints import Fingerprints
from joker.core.joke import GeneratedJoke, Joke, Sampling
from joker.core.model_folder import ModelFolder
from joker.engines import Engine, open_batch, open_engine
from joker.engines.engine import BatchedEngine
from joker.engines.process import ProcessRunner
from joker.engines.protocol import AbandonedError, GenerationListener, load_tokenizer
from joker.generation.request import GenerationRequest
from joker.generation.teller import MissingJokesError, Teller
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import State
from joker.jobs.queue import Work


class Told(GenerationListener):
    """Remembers what work said."""

    def __init__(self, stopped: bool = False) -> None:
        self.jokes: dict[int, GeneratedJoke] = {}
        self.parts: list[tuple[int, str, str]] = []
        self._stopped = stopped

    def on_draft(self, index: int, question: str, answer: str) -> None:
        self.parts.append((index, question, answer))

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:
        self.jokes[index] = joke

    def should_stop(self) -> bool:
        return self._stopped


def request(seed: int = 7, max_attempts: int = 5, **sampling: Any) -> GenerationRequest:
    return GenerationRequest(
        "Why do",
        2,
        Sampling(**sampling),
        seed,
        safe=False,
        candidates=1,
        max_attempts=max_attempts,
    )


def make_work(engine: Engine, fingerprints: Fingerprints | None = None) -> Work:
    return Teller(engine, fingerprints=fingerprints).tell


@pytest.fixture(scope="module")
def engine(served_folder: ModelFolder) -> Engine:
    return open_engine(served_folder, reproducible=True)


@pytest.fixture
def work(engine: Engine) -> Work:
    return make_work(engine)


@pytest.mark.integration
def test_jokes_are_told_and_reported_alike(work: Work, engine: Engine) -> None:
    told = Told()
    jokes = work(request(), told)
    assert [told.jokes[0], told.jokes[1]] == jokes
    assert jokes[0].seed == 7
    whole = engine.tokenizer.encode(Joke(jokes[0].question, jokes[0].answer))
    prompt_tokens = len(engine.tokenizer.encode_prompt("Why do"))
    assert jokes[0].prompt_tokens == prompt_tokens
    # The same text may be drawn in other pieces than the tokenizer would cut it into.
    assert jokes[0].tokens == pytest.approx(len(whole) - prompt_tokens, abs=2)
    assert all(joke.question.startswith("Why do") for joke in jokes)


@pytest.mark.integration
def test_a_joke_of_the_training_data_is_recognised(
    engine: Engine, sample_jokes: list[Joke]
) -> None:
    for known, original in ((sample_jokes, False), ([], True)):
        told = make_work(engine, fingerprints=Fingerprints.of(known))(request(), Told())
        assert {joke.original for joke in told} == {original}
        assert all((joke.similarity == 1.0) is not original for joke in told)
    assert make_work(engine)(request(), Told())[0].original is None


@pytest.mark.integration
def test_of_several_candidates_one_is_told(work: Work) -> None:
    told = Told()
    assert len(work(replace(request(temperature=1.5), candidates=4), told)) == 2
    assert not told.parts


@pytest.mark.integration
def test_a_single_candidate_is_shown_as_it_is_drawn(work: Work) -> None:
    told = Told()
    jokes = work(request(), told)
    for index, question, answer in told.parts:
        assert jokes[index].question.startswith(question)
        assert jokes[index].answer.startswith(answer)
    assert len(told.parts) > 4


@pytest.mark.integration
def test_nothing_comes_of_work_that_nobody_waits_for(work: Work) -> None:
    with pytest.raises(AbandonedError):
        work(request(), Told(stopped=True))


@pytest.mark.integration
def test_jokes_told_before_the_attempts_ran_out_are_reported(engine: Engine) -> None:
    work = make_work(engine)
    for seed in range(200):
        told, untold = Told(), None
        try:
            work(request(seed, 1, temperature=1.8, top_k=0, top_p=1.0), told)
        except MissingJokesError as error:
            untold = error
        if untold and untold.jokes:
            assert len(told.jokes) == len(untold.jokes) == 1
            (joke,) = told.jokes.values()
            assert joke.question == untold.jokes[0].question
            return
    pytest.fail("no seed told one joke of two")


@pytest.mark.integration
def test_threads_share_an_engine_and_get_what_each_would_get_alone(
    served_folder: ModelFolder,
) -> None:
    engine = open_engine(served_folder, reproducible=True, shared=True)
    work = make_work(engine)
    seeds = [7, 7, 8, 9, 7, 10]
    with ThreadPoolExecutor(len(seeds)) as pool:
        results = list(pool.map(lambda seed: work(request(seed), Told()), seeds))
    assert results == [work(request(seed), Told()) for seed in seeds]
    engine.close()


@pytest.mark.integration
def test_jobs_are_told_though_their_engine_dies(tiny_folder: ModelFolder) -> None:
    process = ProcessRunner(partial(open_batch, tiny_folder, "stub"))
    tokenizer = load_tokenizer(tiny_folder, tiny_folder.path)
    work = make_work(BatchedEngine(tokenizer, tiny_folder.manifest.context_length, process))

    async def scenario() -> None:
        queue = InProcessQueue(work, workers=3)
        os.kill(process._process.popen.pid, signal.SIGSTOP)
        jobs = [await queue.submit(request(seed)) for seed in range(3)]
        await asyncio.sleep(0.3)
        assert {(await queue.get(job.id)).state for job in jobs} == {State.STARTED}
        os.kill(process._process.popen.pid, signal.SIGKILL)
        told = [await queue.wait(job.id, 50) for job in jobs]
        assert {job.state for job in told} == {State.SUCCESS}
        assert {job.attempts for job in told} == {2}
        await queue.close()

    asyncio.run(scenario())
    process.close()
