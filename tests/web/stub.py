"""Jokes without a model, and a worker process that tells them.

python stub.py REDIS_URL
"""

from __future__ import annotations

import sys
import time

from joker.core.errors import GenerationError
from joker.core.joke import GeneratedJoke
from joker.engines.protocol import AbandonedError, GenerationListener
from joker.generation.request import GenerationRequest

HOSTILE = '<img src="x" onerror="document.title=\'broken\'">'
LEASE_SECONDS = 1


def tell(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
    """Tell jokes; what the prompt says decides how it goes."""
    if request.prompt == "fail":
        raise GenerationError(
            "no joke worked out (rejected drafts in 5 attempts: 80 withheld by moderation); "
            "try another prompt or seed"
        )
    if request.prompt == "hang":
        while not listener.should_stop():
            time.sleep(0.01)
        raise AbandonedError
    if request.prompt == "slow":
        time.sleep(3)
    jokes = []
    for index in range(request.count):
        seed = request.seed + index
        question = f"{request.prompt or 'Why did the kettle'} number {seed}?"
        answer = HOSTILE if request.prompt == "hostile" else f"It was told with seed {seed}."
        joke = GeneratedJoke(
            question, answer, seed, 1, 3, 9, original=index == 0, similarity=0.25, score=-0.5
        )
        listener.on_draft(index, question, answer[:6])
        listener.on_joke(index, joke)
        jokes.append(joke)
    return jokes


if __name__ == "__main__":
    from joker.settings import load_settings
    from joker.worker import run_worker

    settings = load_settings(broker=sys.argv[1], concurrency=1, lease_seconds=LEASE_SECONDS)
    sys.exit(run_worker(settings, lambda: tell))
