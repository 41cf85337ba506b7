"""Whether votes make the next model's jokes more popular: one round of the circle of laughs.

    python benchmarks/circle.py MODEL --work FOLDER --jokes 400

MODEL is a folder with PyTorch weights. Simulated visitors share a taste: jokes about animals or
food. Each likes such a joke with a probability of 0.85 and any other with 0.15, and three of them
vote on every joke through the store. `joker feedback export` and `joker train --preferences` make
the next model, as docs/how-to/circle-of-laughs.md describes, and it tells as many new jokes, which
get votes too. The share of jokes that fit the taste, and `joker feedback compare`, show whether the
circle works. The taste is deliberately crude, so that it can be checked without readers.

All results are kept in FOLDER, so the same command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from joker.compose import open_teller
from joker.core.joke import GeneratedJoke
from joker.generation.request import GenerationRequest
from joker.generation.teller import MissingJokesError
from joker.settings import load_settings
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
BATCH_SIZE = 64


def tell(model: Path, count: int, seed: int, file: Path) -> list[GeneratedJoke]:
    """Return jokes of one candidate each, so that only the model determines them.

    Args:
        model: The model folder.
        count: Number of jokes.
        seed: Seed of the first joke.
        file: File that caches the jokes, a line for each batch.
    """
    batches = file.read_text("utf-8").splitlines() if file.exists() else []
    told = [GeneratedJoke(**fields) for batch in batches for fields in json.loads(batch)]
    if len(told) < count:
        teller = open_teller(load_settings(model=model))
        with file.open("a", encoding="utf-8") as lines:
            while len(told) < count:
                first = seed + len(batches) * BATCH_SIZE
                request = GenerationRequest(
                    count=BATCH_SIZE, candidates=1, max_attempts=1, seed=first
                )
                try:
                    jokes = teller.tell(request)
                except MissingJokesError as error:
                    jokes = error.jokes
                if not jokes:
                    raise SystemExit(f"{model} tells no jokes")
                told += jokes
                batches.append(json.dumps([asdict(joke) for joke in jokes]))
                print(batches[-1], file=lines, flush=True)
        teller.close()
    return told[:count]


def vote(database: str, jokes: Sequence[GeneratedJoke], model: str) -> None:
    """Let every visitor vote on every joke; repeated calls change nothing."""
    store = Store(database)
    for number, joke in enumerate(jokes):
        stored = store.add(joke, model=model, key=f"{model} {number}")
        if stored is None:
            raise SystemExit("the store cannot be used")
        likes = FITS if TASTE.search(str(joke)) else MISSES
        rng = random.Random(f"{model} {number}")
        for visitor in range(VISITORS):
            store.vote(stored.id, f"visitor {visitor}", "up" if rng.random() < likes else "down")
    store.close()


def report(name: str, jokes: Sequence[GeneratedJoke]) -> None:
    """Print the share of jokes that fit the taste, among all and among original ones."""
    for kind, chosen in (("", jokes), ("original ", [joke for joke in jokes if joke.original])):
        if not chosen:
            continue
        fitting, count = sum(bool(TASTE.search(str(joke))) for joke in chosen), len(chosen)
        low = wilson_lower_bound(fitting, count)
        high = 1 - wilson_lower_bound(count - fitting, count)
        print(
            f"{name}: {count} {kind}jokes, {fitting / count:.1%} fit the taste "
            f"(95% interval {low:.1%} to {high:.1%})",
            flush=True,
        )


def joker(*arguments: str | Path, **environment: str) -> None:
    """Run a ``joker`` command."""
    command = [sys.executable, "-m", "joker", *map(str, arguments)]
    subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=sys.stderr)


def prepare(jokes: Sequence[GeneratedJoke], out: Path) -> None:
    """Prepare a data folder of jokes without votes."""
    if out.exists():
        return
    file = out.with_suffix(".csv")
    with file.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(["Question", "Answer"])
        rows.writerows([joke.question, joke.answer] for joke in jokes)
    joker("data", "prepare", "--jokes", file, "--out", out)


def train(base: Path, data: Path, votes: Path, out: Path, epochs: float) -> None:
    """Train the next model, resuming an interrupted training."""
    if (out / "joker.json").exists():
        return
    if list(out.glob("checkpoints/*/complete")):
        joker("train", "--data", data, "--out", out, "--resume")
        return
    joker(
        *("train", "--data", data, "--preferences", votes, "--base", base),
        *("--out", out, "--punchline-first", "--freeze-layers", "16"),
        *("--epochs", str(epochs), "--learning-rate", "1.5e-4", "--checkpoint-minutes", "3"),
        *("--batch-size", "16", "--gradient-accumulation-steps", "1"),
        *("--compile", "never", "--report-to", "none"),
    )


def main() -> None:
    """Run the rounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="model folder with PyTorch weights")
    parser.add_argument("--jokes", type=int, default=400, help="jokes voted on per round")
    parser.add_argument("--rounds", type=int, default=1, help="number of rounds")
    parser.add_argument("--epochs", type=float, default=4.0, help="passes over the liked jokes")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and models")
    options = parser.parse_args()
    work, model = options.work, options.model
    work.mkdir(exist_ok=True)
    database = f"sqlite:///{work.resolve()}/jokes.sqlite"
    jokes = tell(model, options.jokes, 1, work / "before.jsonl")
    report("before", jokes)
    vote(database, jokes, "before")
    prepared = work / "prepared"
    prepare(tell(model, 60, 10**8, work / "others.jsonl"), prepared)
    for number in range(1, options.rounds + 1):
        votes, folder = work / f"votes-{number}.csv", work / f"round-{number}"
        if not votes.exists():
            joker("feedback", "export", "--out", votes, JOKER_DATABASE=database)
        train(model, prepared, votes, folder, options.epochs)
        model = folder
        jokes = tell(model, options.jokes, 10**6 * number, work / f"{folder.name}.jsonl")
        report(f"after round {number}", jokes)
        vote(database, jokes, folder.name)
    joker("feedback", "compare", JOKER_DATABASE=database)


if __name__ == "__main__":
    main()
