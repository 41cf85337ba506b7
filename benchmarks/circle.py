"""Whether votes make the next model's jokes better liked: the circle of laughs, once around.

    python benchmarks/circle.py MODEL --work FOLDER --jokes 400

MODEL is a folder with PyTorch weights. Simulated visitors share a taste: jokes about animals or
food. Each likes such a joke with a probability of 0.85 and any other with 0.15, and three of them
vote on every joke through the store. `joker feedback export` and `joker train --preferences` make
the next model, as docs/how-to/circle-of-laughs.md describes, and it tells as many new jokes. Their
share that fits the taste says whether the circle works. The taste is crude on purpose: it can be
checked without readers, and it is not what makes a joke work.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from joker.compose import make_teller, open_engine
from joker.core.joke import GeneratedJoke
from joker.generation.request import GenerationRequest
from joker.generation.teller import UntoldError
from joker.settings import read_settings
from joker.store import Store
from joker.store.votes import wilson_lower_bound

TASTE = re.compile(
    r"\b(?:cat|dog|cow|chicken|duck|fish|shark|whale|bee|spider|ant|bear|lion|elephant|mouse|mice|"
    r"rabbit|frog|owl|penguin|horse|pig|sheep|bird|crab|bat|bread|butter|cheese|pizza|soup|salad|"
    r"tomato|potato|onion|banana|apple|cookie|cake|chocolate|coffee|tea|egg|bean|corn|pie|lemon)"
    r"(?:s|es|ies)?\b",
    re.IGNORECASE,
)
FITS, MISSES = 0.85, 0.15
VISITORS = 3
AT_ONCE = 50


def tell(model: Path, count: int, seed: int) -> list[GeneratedJoke]:
    """Return single drafts, so that nothing but the model decides what they are like."""
    settings = read_settings(model=model)
    engine = open_engine(settings)
    teller = make_teller(settings, engine)
    told: list[GeneratedJoke] = []
    for start in range(0, count, AT_ONCE):
        request = GenerationRequest(
            count=min(AT_ONCE, count - start), candidates=1, seed=seed + start
        )
        try:
            told += teller.tell(request)
        except UntoldError as error:
            told += error.told
    engine.close()
    return told


def vote(store: Store, jokes: Sequence[GeneratedJoke], model: str, rng: random.Random) -> None:
    """Let every visitor vote on every joke."""
    for joke in jokes:
        stored = store.add(joke, model=model)
        if stored is None:
            raise SystemExit("the store cannot be used")
        likes = FITS if TASTE.search(str(joke)) else MISSES
        for visitor in range(VISITORS):
            store.vote(stored.id, f"visitor {visitor}", "up" if rng.random() < likes else "down")


def report(name: str, jokes: Sequence[GeneratedJoke]) -> None:
    """Print how many jokes fit the taste, and how often visitors like one."""
    fitting = sum(bool(TASTE.search(str(joke))) for joke in jokes)
    share = fitting / len(jokes)
    low = wilson_lower_bound(fitting, len(jokes))
    high = 1 - wilson_lower_bound(len(jokes) - fitting, len(jokes))
    liked = share * FITS + (1 - share) * MISSES
    print(
        f"{name}: {len(jokes)} jokes, {share:.0%} fit the taste (95% interval {low:.0%} to "
        f"{high:.0%}), visitors like {liked:.0%}",
        flush=True,
    )


def joker(*arguments: str | Path, **environment: str) -> None:
    """Run a command of the package."""
    command = [sys.executable, "-m", "joker", *map(str, arguments)]
    subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=sys.stderr)


def main() -> None:
    """Go around the circle."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="model folder with PyTorch weights")
    parser.add_argument("--jokes", type=int, default=400, help="jokes voted on per round")
    parser.add_argument("--rounds", type=int, default=1, help="number of rounds")
    parser.add_argument("--epochs", type=float, default=4.0, help="passes over the liked jokes")
    parser.add_argument("--work", type=Path, required=True, help="new folder for data and models")
    options = parser.parse_args()
    rng = random.Random(1)
    options.work.mkdir()
    model = options.model
    jokes = tell(model, options.jokes, seed=1)
    report("before", jokes)
    others = options.work / "others.csv"
    with others.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Question", "Answer"])
        rows.writerows([joke.question, joke.answer] for joke in tell(model, 60, seed=10**8))
    prepared = options.work / "prepared"
    joker("data", "prepare", "--jokes", others, "--out", prepared)
    for number in range(1, options.rounds + 1):
        folder = options.work / f"round-{number}"
        database = f"sqlite:///{folder}.sqlite"
        store = Store(database)
        vote(store, jokes, model.name, rng)
        store.close()
        votes = options.work / f"votes-{number}.csv"
        joker("feedback", "export", "--out", votes, JOKER_DATABASE=database)
        joker(
            *("train", "--data", prepared, "--preferences", votes, "--base", model),
            *("--out", folder, "--punchline-first", "--freeze-layers", "16"),
            *("--epochs", str(options.epochs), "--learning-rate", "1.5e-4"),
            *("--batch-size", "16", "--gradient-accumulation-steps", "1"),
            *("--compile", "never", "--report-to", "none"),
        )
        model = folder
        jokes = tell(model, options.jokes, seed=10**6 * number)
        report(f"after round {number}", jokes)


if __name__ == "__main__":
    main()
