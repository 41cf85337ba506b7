"""Effect of the number of ranked candidates on the fit, variety, time and memory of jokes.

    python benchmarks/ranking.py MODEL --data PREPARED --judge OTHER --candidates 1 4 8

The model answers held-out questions and invents jokes. Fit is measured in two ways: how often an
answer picks its own question among ten by another model's log p(answer | question), and by the
number of long words that they share. The first is biased if the judge learned from the same jokes,
and circular if it is the model itself; the second uses no model. Both favour long answers, so their
length is reported too, with people's answers to the same questions as the reference. Prints a JSON
object.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from joker.core.joke import GeneratedJoke, Joke
from joker.core.model_folder import ModelFolder
from joker.core.similarity import normalize
from joker.engines import Engine, open_engine
from joker.evaluation.bootstrap import bootstrap_ratio
from joker.evaluation.held_out import HeldOut
from joker.evaluation.likelihood_metrics import CHOICES, hits
from joker.evaluation.text_metrics import TrainingIndex, distinct, frequent_share
from joker.generation.moderation import Moderator
from joker.generation.request import GenerationRequest
from joker.generation.teller import MissingJokesError, Teller

SEED = 1
LONG_WORD = 4  # letters; shorter words are mostly grammar


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("--data", type=Path, required=True, help="prepared folder")
    parser.add_argument("--judge", type=Path, required=True, help="another model folder")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--jokes", type=int, default=500, help="jokes of each kind")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of the command line")
    options = parser.parse_args()

    held_out = HeldOut.open(options.data)
    people = askable(held_out, options.jokes)
    training = TrainingIndex(held_out.training or [])
    judge = open_engine(ModelFolder.open(options.judge))
    teller = Teller(open_engine(ModelFolder.open(options.model)))
    report = {"people": figures(people, judge, training)}
    for candidates in options.candidates:
        begin = time.perf_counter()
        answered = [
            told.pair
            for seed, joke in enumerate(people)
            for told in tell(teller, joke.question, 1, seed, candidates)
        ]
        seconds = (time.perf_counter() - begin) / len(people)
        invented = [told.pair for told in tell(teller, "", options.jokes, SEED, candidates)]
        report[f"{candidates} candidates"] = {
            "seconds_per_answer": seconds,
            "answered": figures(answered, judge, training),
            "invented": figures(invented, judge, training),
            "command": time_command(options.model, candidates, options.rounds),
        }
        print(f"measured {candidates} candidates", file=sys.stderr)
    print(json.dumps(report, indent=2))


def askable(held_out: HeldOut, limit: int) -> list[Joke]:
    """Return inoffensive jokes whose questions end with a question mark, one per cluster."""
    pairs = zip(held_out.clusters, held_out.jokes, strict=True)
    one_each = {cluster: joke for cluster, joke in pairs if joke.question.endswith("?")}
    withholds = Moderator.default().withholds
    jokes = [joke for joke in one_each.values() if not withholds(f"{joke.question}\n{joke.answer}")]
    return [jokes[i] for i in np.random.default_rng(SEED).permutation(len(jokes))[:limit]]


def tell(
    teller: Teller, prompt: str, count: int, seed: int, candidates: int
) -> list[GeneratedJoke]:
    """Return the jokes that could be told."""
    try:
        return teller.tell(GenerationRequest(prompt, count, seed=seed, candidates=candidates))
    except MissingJokesError as error:
        return error.jokes


def figures(jokes: Sequence[Joke], judge: Engine, training: TrainingIndex) -> dict[str, object]:
    """Measure how well answers fit their questions and how much they differ."""
    rng = np.random.default_rng(SEED)
    rows = [
        [own, *(other + (other >= own) for other in rng.permutation(len(jokes) - 1)[: CHOICES - 1])]
        for own in range(len(jokes))
    ]
    trials = [[Joke(jokes[i].question, jokes[row[0]].answer) for i in row] for row in rows]
    encoded = [judge.tokenizer.encode(joke) for trial in trials for joke in trial]
    estimates = {
        "picks_question_by_judge": bootstrap_ratio(
            hits(np.reshape(list(map(math.fsum, judge.score(encoded))), (-1, CHOICES))), seed=SEED
        ),
        "picks_question_by_words": bootstrap_ratio(
            hits([[len(words(j.question) & words(j.answer)) for j in trial] for trial in trials]),
            seed=SEED,
        ),
        "words_per_answer": bootstrap_ratio([len(j.answer.split()) for j in jokes], seed=SEED),
        **{f"distinct_{n}": distinct(jokes, n, seed=SEED) for n in (1, 2, 3)},
        "frequent_answers": frequent_share([joke.answer for joke in jokes], seed=SEED),
        "copied": bootstrap_ratio([bool(training.find_copy(joke)) for joke in jokes], seed=SEED),
    }
    return {"jokes": len(jokes)} | {name: asdict(each) for name, each in estimates.items()}


def words(text: str) -> set[str]:
    """Return the set of long words in a text."""
    return {word for word in normalize(text).split() if len(word) >= LONG_WORD}


def time_command(model: Path, candidates: int, rounds: int) -> dict[str, float]:
    """Time ``joker tell``: median wall-clock and CPU seconds, and peak memory."""
    seconds, processor_seconds, peaks = [], [], []
    for seed in range(rounds):
        command = [sys.executable, "-m", "joker", "tell", "--model", str(model)]
        command += ["--candidates", str(candidates), "--seed", str(seed)]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, *command], check=True, capture_output=True, text=True
        )
        elapsed, processor, peak = map(float, done.stdout.split())
        seconds.append(elapsed)
        processor_seconds.append(processor)
        peaks.append(peak / 1024)
    return {
        "seconds": statistics.median(seconds),
        "most_seconds": max(seconds),
        "processor_seconds": statistics.median(processor_seconds),
        "peak_mebibytes": max(peaks),
    }


# A small process starts the command, because a forked child's peak memory includes its parent's.
_MEASURE = """
import resource, subprocess, sys, time
begin = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
elapsed = time.perf_counter() - begin
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(elapsed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


if __name__ == "__main__":
    main()
