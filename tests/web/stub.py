"""Jokes without a model, and a worker process that tells them.

python stub.py REDIS_URL
"""

from __future__ import annotations

import sys
import time

from joker.core.errors import GenerationError
from joker.jobs.job import JokeRequest, JokeResult
from joker.jobs.queue import Progress

HOSTILE = '<img src="x" onerror="document.title=\'broken\'">'
LEASE_SECONDS = 1


def tell(request: JokeRequest, progress: Progress) -> list[JokeResult]:
    """Tell jokes; what the prompt says decides how it goes."""
    if request.prompt == "fail":
        raise GenerationError("the joke could not be told in 5 tries; change the prompt")
    if request.prompt == "hang":
        while not progress.stopped():
            time.sleep(0.01)
        return []
    jokes = []
    for index in range(request.count):
        seed = request.seed + index
        question = f"{request.prompt or 'Why did the kettle'} number {seed}?"
        answer = HOSTILE if request.prompt == "hostile" else f"It was told with seed {seed}."
        joke = JokeResult(question, answer, seed, 1, index == 0, 0.25, prompt_tokens=3, tokens=9)
        progress.partial(index, question, answer[:6])
        progress.joke(index, joke)
        jokes.append(joke)
    return jokes


if __name__ == "__main__":
    from joker.settings import read_settings
    from joker.worker.app import run_worker

    settings = read_settings(broker=sys.argv[1], workers=1, lease_seconds=LEASE_SECONDS)
    sys.exit(run_worker(settings, lambda: tell))
