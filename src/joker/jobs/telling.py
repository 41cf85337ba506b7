"""What a job's work is: one request to the teller, its jokes reported as results."""

from __future__ import annotations

import threading
from dataclasses import replace

from joker.comedy.teller import Teller, ToldJoke, UntoldError
from joker.jobs.job import JokeRequest, JokeResult
from joker.jobs.queue import Progress

_LOOK_SECONDS = 0.2


class TellerWork:
    """Tells requests' jokes, for any number of threads; a `joker.jobs.queue.Work`.

    Args:
        safe: Withholds what the moderation list flags.
        unsafe: Tells everything; of the same engine.
        tries: How many times the engine is asked for each joke at most.
    """

    def __init__(self, *, safe: Teller, unsafe: Teller, tries: int) -> None:
        self._tellers = {True: safe, False: unsafe}
        self._tries = tries
        # An engine takes one call at a time.
        self._engine = threading.Lock()

    def __call__(self, request: JokeRequest, progress: Progress) -> list[JokeResult]:
        """Tell a request's jokes, or none once nobody waits for them; see `Work`."""
        while not self._engine.acquire(timeout=_LOOK_SECONDS):
            if progress.stopped():
                return []
        try:
            if progress.stopped():
                return []
            told = self._tellers[request.safe].tell(
                request.prompt,
                request.count,
                request.sampling,
                request.seed,
                self._tries,
                request.candidates,
            )
        except UntoldError as error:
            _report(error.told, progress)
            raise
        finally:
            self._engine.release()
        return _report(told, progress)


def _report(told: list[ToldJoke], progress: Progress) -> list[JokeResult]:
    results = [_result(joke) for joke in told]
    for index, result in enumerate(results):
        progress.joke(index, result)
    return results


def _result(told: ToldJoke) -> JokeResult:
    result = JokeResult(told.joke.question, told.joke.answer, told.seed, told.tries)
    if told.recognition is None:
        return result
    return replace(result, original=not told.retold, similarity=told.recognition.similarity)
