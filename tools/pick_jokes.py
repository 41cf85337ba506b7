"""Pick the jokes that ship with a model: readers found that they work, the server tells them first.

    joker tell -n 50 --candidates 32 --seed 1 --json > drafts-1.json     # many times
    python tools/pick_jokes.py mix drafts-*.json --people jokes.csv --lines lines.txt --key key.json
    # Several readers each write a file with a line 'NUMBER SCORE' for each line of lines.txt, from
    # 0 (nonsense) and 1 (no joke) to 2 (works) and 3 (funny), or X for what may offend somebody.
    python tools/pick_jokes.py pick key.json reader-*.txt --out MODEL_FOLDER/picked_jokes.jsonl

Jokes by people stand among the lines, so that readers keep their scale; they are never picked.
docs/how-to/bundled-model.md tells how the bundled model's were picked.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from joker.core.joke import GeneratedJoke, Joke, punchline_key
from joker.generation.moderation import Moderator

_VERDICT = re.compile(r"\s*(\d+)\s+([0-3Xx])\s*")
_WORKS = 2

Verdict = int | None
"""A reader's score of a joke; None for one that may offend somebody."""


def sift(drafts: Iterable[GeneratedJoke]) -> Iterator[GeneratedJoke]:
    """Yield drafts that can be picked: original, on no delicate topic, and each punchline once."""
    moderator = Moderator.default()
    seen: set[str] = set()
    for draft in drafts:
        key = punchline_key(draft.answer)
        if draft.original and key not in seen and not moderator.check(str(draft)):
            seen.add(key)
            yield draft


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
    """Return whether enough readers read a line and all of them found that its joke works."""
    verdicts = [reader[number] for reader in readers if number in reader]
    return len(verdicts) >= least and all(v is not None and v >= _WORKS for v in verdicts)


def mix(args: argparse.Namespace) -> None:
    """Write drafts and people's jokes as numbered lines, and the key of what each line is."""
    found = (GeneratedJoke(**one) for path in args.drafts for one in json.loads(path.read_text()))
    entries: list[dict[str, Any]] = [
        {"draft": {name: getattr(draft, name) for name in draft.__dataclass_fields__}}
        for draft in sift(found)
    ]
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
    """Write the drafts that all readers found to work, those they liked best first."""
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
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(required=True)
    mixing = steps.add_parser("mix", help="write the lines for the readers")
    mixing.add_argument("drafts", nargs="+", type=Path, help="JSON files of 'joker tell --json'")
    mixing.add_argument("--people", type=Path, help="CSV file with the columns Question and Answer")
    mixing.add_argument("--share", type=float, default=0.1, help="people's jokes for each draft")
    mixing.add_argument("--lines", type=Path, required=True, help="file for the readers")
    mixing.add_argument("--key", type=Path, required=True, help="file that no reader may see")
    mixing.add_argument("--seed", type=int, default=1, help="of the order and the people's jokes")
    mixing.set_defaults(step=mix)
    picking = steps.add_parser("pick", help="write the picked jokes")
    picking.add_argument("key", type=Path, help="the file that 'mix' wrote")
    picking.add_argument("verdicts", nargs="+", type=Path, help="a file for each reader")
    picking.add_argument("--least", type=int, default=2, help="least readers of a picked joke")
    picking.add_argument("--out", type=Path, required=True, help="picked_jokes.jsonl")
    picking.set_defaults(step=pick)
    args = parser.parse_args()
    args.step(args)


if __name__ == "__main__":
    main()
