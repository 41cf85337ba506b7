"""What a job's work is: one request to the teller, its jokes reported as results."""

from __future__ import annotations

from dataclasses import replace

from joker.engines.protocol import AbandonedError
from joker.generation.teller import Teller, ToldJoke
from joker.jobs.job import JokeRequest, JokeResult
from joker.jobs.queue import Progress


class TellerWork:
    """Tells requests' jokes, for any number of threads; a `joker.jobs.queue.Work`.

    Args:
        teller: Its engine takes many threads.
        tries: How many times the engine is asked for each joke at most.
    """

    def __init__(self, teller: Teller, *, tries: int) -> None:
        self._teller = teller
        self._tries = tries

    def __call__(self, request: JokeRequest, progress: Progress) -> list[JokeResult]:
        """Tell a request's jokes, or none once nobody waits for them; see `Work`."""
        try:
            told = self._teller.tell(
                request.prompt,
                request.count,
                request.sampling,
                request.seed,
                self._tries,
                request.candidates,
                request.safe,
                request.exclude_categories,
                watch=_Reporter(progress),
            )
        except AbandonedError:
            return []
        return [_result(joke) for joke in told]


class _Reporter:
    """Passes what the teller says on to the queue."""

    def __init__(self, progress: Progress) -> None:
        self.partial = progress.partial
        self.stopped = progress.stopped
        self._progress = progress

    def told(self, index: int, joke: ToldJoke) -> None:
        self._progress.joke(index, _result(joke))


def _result(told: ToldJoke) -> JokeResult:
    result = JokeResult(
        told.joke.question,
        told.joke.answer,
        told.seed,
        told.tries,
        prompt_tokens=told.prompt_tokens,
        tokens=told.tokens,
    )
    if told.recognition is None:
        return result
    return replace(result, original=not told.near_duplicate, similarity=told.recognition.similarity)
