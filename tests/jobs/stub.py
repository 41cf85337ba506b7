"""Work whose prompt says what it does, and a worker process that does it.

python stub.py REDIS_URL THREADS LEASE_SECONDS
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from joker.core.errors import GenerationError
from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest


def stub_work(request: GenerationRequest, listener: GenerationListener) -> list[GeneratedJoke]:
    """Do what the prompt says, then tell the jokes.

    - ``after PATH``: wait until the file is there, or nobody waits for the jokes.
    - ``deaf PATH``: wait until the file is there, whoever waits.
    - ``half PATH``: tell the first joke, then wait like ``after``.
    - ``refuse``: tell the first joke and say why there are no more.
    - ``fault``: break down. ``fault until PATH``: only until the file is there, and make it.
    """
    jokes = [
        GeneratedJoke(f"What is joke number {number}?", "Told.", request.seed + number, 1)
        for number in range(request.count)
    ]
    verb, _, argument = request.prompt.partition(" ")
    if verb in ("half", "refuse"):
        listener.on_joke(0, jokes[0])
    if verb == "refuse":
        raise GenerationError("the others could not be told in 5 tries; change the prompt")
    if verb == "fault":
        gate = Path(argument.removeprefix("until "))
        if not argument or not gate.exists():
            if argument:
                gate.touch()
            raise RuntimeError("stub")
    if verb in ("after", "deaf", "half"):
        while not Path(argument).exists():
            if verb != "deaf" and listener.should_stop():
                return []
            time.sleep(0.01)
    for index, joke in enumerate(jokes):
        if verb == "half" and index == 0:
            continue
        listener.on_draft(index, joke.question, "")
        listener.on_joke(index, joke)
    return jokes


if __name__ == "__main__":
    from joker.settings import load_settings
    from joker.worker import run_worker

    url, threads, lease_seconds = sys.argv[1:]
    settings = load_settings(broker=url, concurrency=threads, lease_seconds=lease_seconds)
    sys.exit(run_worker(settings, lambda: stub_work))
