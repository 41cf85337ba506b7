"""Pick the jokes that ship with a model, which readers found to work and the server tells first.

    python tools/pick_jokes.py draft MODEL_FOLDER --hours 1 --out drafts.json
    python tools/pick_jokes.py mix drafts.json --people jokes.csv --lines lines.txt --key key.json
    # Several readers each write a file with a line 'NUMBER SCORE' for each line of lines.txt, from
    # 0 (nonsense) and 1 (no joke) to 2 (works) and 3 (funny), or X for what may offend somebody.
    python tools/pick_jokes.py pick key.json reader-*.txt --out MODEL_FOLDER/picked_jokes.jsonl

A model falls back on a few punchlines, so 'draft' explores: of each punchline that turns up, it
keeps the question that fits best. Prompts, such as "Why did the cat" and "Why are cats", make other
punchlines turn up. Human jokes stand among the lines, so that readers keep their
scale; they are never picked. docs/how-to/bundled-model.md has the bundled model's numbers.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path
from statistics import mean
from typing import Any

from joker.compose import open_teller
from joker.core.joke import GeneratedJoke, Joke, Sampling, punchline_key
from joker.generation.moderation import Moderator
from joker.generation.ranking import rate
from joker.generation.request import GenerationRequest
from joker.generation.teller import MissingJokesError, Teller
from joker.settings import load_settings

_VERDICT = re.compile(r"\s*(\d+)\s+([0-3Xx])\s*")
_WORKS = 2
_AT_ONCE = 64
_SAMPLING = Sampling(temperature=1.0)

Verdict = int | None
"""A reader's score of a joke; None for one that may offend somebody."""


def explore(
    teller: Teller, until: float, seed: int, prompts: Sequence[str] = ("",)
) -> Iterator[tuple[float, GeneratedJoke]]:
    """Yield drafts that can be picked, with the model's rating: original, on no delicate topic.

    Args:
        teller: Tells single drafts.
        until: When to stop, on `time.monotonic`.
        seed: Of the first drafts.
        prompts: Taken in turn; by default none.
    """
    moderator = Moderator.default()
    for prompt in cycle(prompts):
        if time.monotonic() >= until:
            return
        request = GenerationRequest(
            prompt, count=_AT_ONCE, candidates=1, max_attempts=1, seed=seed, sampling=_SAMPLING
        )
        try:
            told = teller.tell(request)
        except MissingJokesError as error:
            told = error.jokes
        usable = [one for one in told if one.original and not moderator.check(str(one))]
        jokes = [Joke(one.question, one.answer) for one in usable]
        for rating, joke in zip(rate(teller.engine, jokes), usable, strict=True):
            yield rating, replace(joke, score=rating)
        seed += _AT_ONCE


def best_of_each(rated: Iterable[tuple[float, GeneratedJoke]]) -> list[GeneratedJoke]:
    """Return the best joke of each punchline, the best rated first."""
    best: dict[str, tuple[float, GeneratedJoke]] = {}
    for rating, joke in rated:
        key = punchline_key(joke.answer)
        if key not in best or best[key][0] < rating:
            best[key] = rating, joke
    return [joke for _, joke in sorted(best.values(), key=lambda pair: -pair[0])]


def read_verdicts(paths: Sequence[Path], lines: int) -> list[dict[int, Verdict]]:
    """Return each reader's verdicts by the number of the line.

    Raises:
        SystemExit: If a reader left out lines, or wrote something else.
    """
    readers = []
    for path in paths:
        verdicts: dict[int, Verdict] = {}
        for line in filter(str.strip, path.read_text("utf-8").splitlines()):
            match = _VERDICT.fullmatch(line)
            if not match:
                raise SystemExit(f"{path}: {line!r} is not a number and a score from 0 to 3 or X")
            verdicts[int(match[1])] = None if match[2] in "Xx" else int(match[2])
        readers.append(verdicts)
    if unread := set(range(lines)) - set().union(*readers):
        raise SystemExit(f"nobody read line {min(unread)} and {len(unread) - 1} others")
    return readers


def choose(readers: Sequence[dict[int, Verdict]], number: int, least: int) -> bool:
    """Return whether enough readers read a line, most found it to work and none took offense."""
    verdicts = [reader[number] for reader in readers if number in reader]
    if len(verdicts) < least or None in verdicts:
        return False
    return sum(v is not None and v >= _WORKS for v in verdicts) * 2 > len(verdicts)


def draft(args: argparse.Namespace) -> None:
    """Write the best draft of each punchline that turns up."""
    settings = load_settings(model=args.model)
    teller = open_teller(settings)
    until = time.monotonic() + args.hours * 3600
    prompts = args.prompts.read_text("utf-8").splitlines() if args.prompts else [""]
    rated = explore(teller, until, args.seed, prompts)
    jokes = [asdict(joke) for joke in best_of_each(rated)]
    args.out.write_text(json.dumps(jokes, ensure_ascii=False, indent=0), "utf-8")
    print(f"{len(jokes)} punchlines")


def mix(args: argparse.Namespace) -> None:
    """Write drafts and human jokes as numbered lines, and a key that says what each line is."""
    drafts = json.loads(args.drafts.read_text("utf-8"))[args.skip :][: args.most]
    entries: list[dict[str, Any]] = [{"draft": draft} for draft in drafts]
    rng = random.Random(args.seed)
    if args.people:
        with args.people.open(encoding="utf-8", newline="") as file:
            people = [Joke(row["Question"], row["Answer"]) for row in csv.DictReader(file)]
        amount = min(len(people), round(len(entries) * args.share))
        entries += [{"person": [joke.question, joke.answer]} for joke in rng.sample(people, amount)]
    rng.shuffle(entries)
    args.key.write_text(json.dumps(entries), "utf-8")
    with args.lines.open("w", encoding="utf-8") as file:
        for number, entry in enumerate(entries):
            question, answer = _parts(entry)
            line = " ".join(f"{number} Q: {question} A: {answer}".split())
            print(line, file=file)
    print(f"{len(entries)} lines, {sum('draft' in entry for entry in entries)} of them drafts")


def pick(args: argparse.Namespace) -> None:
    """Write the drafts that most of their readers found to work, those they liked best first."""
    entries = json.loads(args.key.read_text("utf-8"))
    readers = read_verdicts(args.verdicts, len(entries))
    for kind in ("draft", "person"):
        told = [number for number, entry in enumerate(entries) if kind in entry]
        given = [reader[number] for reader in readers for number in told if number in reader]
        if given:
            works = sum(score is not None and score >= _WORKS for score in given) / len(given)
            print(f"{kind}: {len(told)} jokes, {len(given)} verdicts, {works:.0%} work")
    chosen = [
        number
        for number, entry in enumerate(entries)
        if "draft" in entry and choose(readers, number, args.least)
    ]
    chosen.sort(key=lambda number: -mean(r[number] or 0 for r in readers if number in r))
    with args.out.open("w", encoding="utf-8") as file:
        for number in chosen:
            print(json.dumps(entries[number]["draft"], ensure_ascii=False), file=file)
    print(f"{len(chosen)} picked")


def _parts(entry: dict[str, Any]) -> tuple[str, str]:
    if "person" in entry:
        question, answer = entry["person"]
        return question, answer
    return entry["draft"]["question"], entry["draft"]["answer"]


def main() -> None:
    """Run one of the three steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(required=True)
    drafting = steps.add_parser("draft", help="draft jokes, one for each punchline")
    drafting.add_argument("model", type=Path, help="model folder")
    drafting.add_argument("--hours", type=float, default=1.0, help="hours to draft for")
    drafting.add_argument("--prompts", type=Path, help="text file with a prompt a line")
    drafting.add_argument("--seed", type=int, default=1, help="random seed")
    drafting.add_argument("--out", type=Path, required=True, help="JSON file to write")
    drafting.set_defaults(step=draft)
    mixing = steps.add_parser("mix", help="write the lines for the readers")
    mixing.add_argument("drafts", type=Path, help="the file that 'draft' wrote")
    mixing.add_argument("--most", type=int, default=500, help="maximum number of drafts")
    mixing.add_argument(
        "--skip", type=int, default=0, help="best-rated drafts to skip, as already read"
    )
    mixing.add_argument("--people", type=Path, help="CSV file with the columns Question and Answer")
    mixing.add_argument("--share", type=float, default=0.1, help="human jokes per draft")
    mixing.add_argument("--lines", type=Path, required=True, help="file for the readers")
    mixing.add_argument("--key", type=Path, required=True, help="file that no reader may see")
    mixing.add_argument("--seed", type=int, default=1, help="random seed")
    mixing.set_defaults(step=mix)
    picking = steps.add_parser("pick", help="write the picked jokes")
    picking.add_argument("key", type=Path, help="the file that 'mix' wrote")
    picking.add_argument("verdicts", nargs="+", type=Path, help="a file for each reader")
    picking.add_argument(
        "--least", type=int, default=2, help="minimum number of readers of a picked joke"
    )
    picking.add_argument("--out", type=Path, required=True, help="picked_jokes.jsonl")
    picking.set_defaults(step=pick)
    args = parser.parse_args()
    args.step(args)


if __name__ == "__main__":
    main()
