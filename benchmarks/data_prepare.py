"""Duration, throughput and peak memory of `joker data prepare` on many posts.

    python benchmarks/data_prepare.py                       # invented posts
    python benchmarks/data_prepare.py --rjokes FILE.csv     # varied from real ones

Posts are derived from real or invented ones. As in the public data sets, 15% equal an earlier post
except for case and punctuation, and 18% are near-duplicates of one; the others replace most words
of a post. The goal is a million posts in 150 seconds and 4 GiB on two cores.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from joker.data.preparation import prepare
from joker.data.sources import Source, read_rows

EQUAL_SHARE, NEAR_SHARE = 0.15, 0.18
INVENTED_BASE = 20_000
OPENINGS = (
    "What do you call a {} that {} the {}?",
    "Why did the {} {} a {}?",
    "What's the difference between a {} and a {} {}?",
    "Did you hear about the {} who {} {}?",
    "How many {} does it take to {} a {}?",
    "My {} said that {} is {}...",
    "A {} walks into a {} with a {}.",
    "The {} of {}",
)
Post = tuple[str, str]


def main() -> None:
    """Print a line for each number of posts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rjokes", type=Path, help="real posts to vary (default: invented ones)")
    parser.add_argument("--posts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(
        f"{'posts':>10} {'seconds':>8} {'posts/s':>8} {'peak GiB':>9} {'jokes':>9} {'clusters':>9}"
    )
    for count in options.posts:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "jokes_score_name_clean.csv")
            write_posts(file, count, options.rjokes, random.Random(options.seed))
            with PeakMemory() as memory:
                began = time.perf_counter()
                manifest = prepare([Source.rjokes(file)], Path(folder, "prepared"))
                seconds = time.perf_counter() - began
        jokes = manifest.train + manifest.test
        print(
            f"{count:>10,} {seconds:>8.1f} {count / seconds:>8,.0f} {memory.peak / 2**30:>9.2f} "
            f"{jokes:>9,} {manifest.clusters:>9,}",
            flush=True,
        )


class PeakMemory:
    """Measures the peak resident memory of this process and its descendants."""

    def __enter__(self) -> PeakMemory:
        self.peak = 0
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._done.wait(0.1):
            total = own.memory_info().rss
            for child in own.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, total)


def write_posts(file: Path, count: int, real: Path | None, rng: random.Random) -> None:
    """Write posts in the columns of Kaggle's cuddlefish/reddit-rjokes."""
    if real:
        base = [(row.question, row.answer) for row in read_rows(Source.rjokes(real))]
    else:
        base = invent(INVENTED_BASE, rng)
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["", "id", "score", "q", "a", "timestamp", "name"])
        for number, (title, body) in enumerate(vary(base, count, rng)):
            writer.writerow(
                [number, f"id{number}", 5 + number % 500, title, body, 1.4e9, "someone"]
            )


def vary(base: Sequence[Post], count: int, rng: random.Random) -> Iterator[Post]:
    """Yield posts derived from others: duplicates, near-duplicates, or with most words replaced."""
    vocabulary = [
        word for title, body in base for word in f"{title} {body}".split() if len(word) > 3
    ]
    recent = list(base[:1000])
    for _ in range(count):
        kind = rng.random()
        if kind < EQUAL_SHARE:
            title, body = rng.choice(recent)
            yield title.lower(), body + "!"
        elif kind < EQUAL_SHARE + NEAR_SHARE:
            title, body = rng.choice(recent)
            yield replace_words(title, 0.1, vocabulary, rng), body
        else:
            title, body = rng.choice(base)
            post = (
                replace_words(title, 0.8, vocabulary, rng),
                replace_words(body, 0.8, vocabulary, rng),
            )
            recent[rng.randrange(len(recent))] = post
            yield post


def replace_words(text: str, share: float, vocabulary: Sequence[str], rng: random.Random) -> str:
    """Return a text with a share of its longer words replaced by others."""
    words = text.split(" ")
    for index, word in enumerate(words):
        if len(word) > 3 and rng.random() < share:
            end = word[-1] if word[-1] in "?.!," else ""
            words[index] = rng.choice(vocabulary).strip("?.!,\n") + end
    return " ".join(words)


def invent(count: int, rng: random.Random) -> list[Post]:
    """Return posts of invented words with realistic lengths: riddles and stories."""
    syllables = [
        c + v for c in "bcdfghklmnprstvwz" for v in ("a", "e", "i", "o", "u", "ar", "en", "ou")
    ]
    words = ["".join(rng.choices(syllables, k=rng.randint(2, 4))) for _ in range(20_000)]
    posts = []
    for _ in range(count):
        title = rng.choice(OPENINGS).format(*rng.choices(words, k=3))
        size = rng.choice((4, 6, 8, 12, 20)) if rng.random() < 0.6 else rng.randint(60, 300)
        body = rng.choices(words, k=size)
        for stop in range(11, size - 1, 12):
            body[stop] += rng.choice((".", '."', "?", ".\n\n"))
        posts.append((title, " ".join(body).capitalize() + "."))
    return posts


if __name__ == "__main__":
    main()
