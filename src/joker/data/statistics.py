"""Statistics of a prepared folder: what ``joker data show`` prints and plots."""

from __future__ import annotations

import errno
import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from joker.core.errors import DataError, MissingPartError, ResourceError
from joker.core.joke import Joke
from joker.data.manifest import DataManifest
from joker.data.prepared import PreparedData, PreparedJoke

QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
LARGEST_CLUSTERS = 8


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of near-duplicates.

    Attributes:
        size: Jokes in it.
        example: The first of them.
    """

    size: int
    example: Joke


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers about the jokes in a folder.

    Attributes:
        sizes: Jokes of each source in training and test.
        question_lengths: Characters of each question.
        answer_lengths: Characters of each answer.
        scores: Scores of the jokes of each source that has them.
        clusters: Size of every cluster of near-duplicates.
        largest: The largest of them.
    """

    sizes: dict[tuple[str, str], int]
    question_lengths: list[int]
    answer_lengths: list[int]
    scores: dict[str, list[int]]
    clusters: list[int]
    largest: list[Cluster]


def describe(data: PreparedData) -> Statistics:
    """Return the statistics of a prepared folder."""
    jokes = [*data.jokes("train"), *data.jokes("test")]
    scores: dict[str, list[int]] = {}
    first: dict[int, PreparedJoke] = {}
    for joke in jokes:
        first.setdefault(joke.cluster, joke)
        if joke.score is not None:
            scores.setdefault(joke.source, []).append(joke.score)
    clusters = Counter(joke.cluster for joke in jokes)
    return Statistics(
        sizes=dict(Counter((joke.source, joke.split) for joke in jokes)),
        question_lengths=[len(joke.joke.question) for joke in jokes],
        answer_lengths=[len(joke.joke.answer) for joke in jokes],
        scores=scores,
        clusters=list(clusters.values()),
        largest=[
            Cluster(size, first[name].joke)
            for name, size in clusters.most_common(LARGEST_CLUSTERS)
            if size > 1
        ],
    )


def quantiles(values: Sequence[int]) -> list[int]:
    """Return the `QUANTILES` of some numbers, each one of them."""
    return [int(value) for value in np.quantile(values, QUANTILES, method="nearest")]


def plot(statistics: Statistics, manifest: DataManifest, path: Path) -> None:
    """Plot the statistics to a PNG file.

    Raises:
        DataError: If the file cannot be written.
        ResourceError: If the disk is full.
        MissingPartError: If matplotlib is not installed.
    """
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingPartError(
            "matplotlib is not installed; plots need pip install 'gpt2-the-joker[train]'"
        ) from error
    figure = figures.Figure(figsize=(12, 10), layout="constrained")
    (outcomes, reasons), (lengths, scores), (clusters, leak) = figure.subplots(3, 2)

    names = list(manifest.sources)
    left = np.zeros(len(names))
    for outcome in ("kept", "plain", "dropped"):
        counts = np.array([_total(getattr(manifest.sources[name], outcome)) for name in names])
        outcomes.barh(names, counts, left=left, label=outcome)
        left += counts
    outcomes.set(title="Rows read", xlabel="rows")
    outcomes.legend(loc="lower right")

    dropped = Counter[str]()
    for source in manifest.sources.values():
        dropped.update(source.dropped)
        dropped.update(source.plain)
    shown = dropped.most_common()[::-1]
    reasons.barh([name for name, _ in shown], [count for _, count in shown])
    reasons.set(title="Not kept, by reason", xlabel="rows", xscale="log" if shown else "linear")

    bins = np.arange(0, 301, 10)
    for name, values in (
        ("question", statistics.question_lengths),
        ("answer", statistics.answer_lengths),
    ):
        lengths.hist(np.minimum(values, bins[-1]), bins=bins, histtype="step", label=name)
    lengths.set(title="Length (300 and more in the last bar)", xlabel="characters", ylabel="jokes")
    lengths.legend()

    for name, values in statistics.scores.items():
        scores.hist(np.log10(np.maximum(values, 1)), bins=30, histtype="step", label=name)
    scores.set(title="Score", xlabel="log10 of the score", ylabel="jokes")
    if statistics.scores:
        scores.legend()

    sizes = Counter(statistics.clusters)
    clusters.scatter(list(sizes), list(sizes.values()), s=12)
    clusters.set(
        title="Clusters of near-duplicates",
        xlabel="jokes",
        ylabel="clusters",
        xscale="log",
        yscale="log",
    )

    shares = [100 * entry.copied / max(entry.test, 1) for entry in manifest.leak.values()]
    leak.bar(list(manifest.leak), shares)
    leak.set(title="Test jokes with a near-duplicate in training", ylabel="%", ylim=(0, 100))
    try:
        figure.savefig(path, format="png", dpi=100)
    except OSError as error:
        kind = ResourceError if error.errno == errno.ENOSPC else DataError
        raise kind(f"cannot write {path}: {error.strerror or error}; see --plot") from error


def _total(count: int | dict[str, int]) -> int:
    return count if isinstance(count, int) else sum(count.values())
