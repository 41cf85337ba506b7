"""Statistics of a prepared folder: what ``joker data show`` prints and plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from joker.core.errors import import_optional
from joker.core.joke import Joke
from joker.data.prepared import DataManifest, PreparedData, PreparedJoke, writing

QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
LARGEST_CLUSTERS = 8


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers about the jokes in a folder.

    Attributes:
        sizes: Number of jokes by source and split.
        question_lengths: Characters of each question.
        answer_lengths: Characters of each answer.
        scores: Scores of jokes by source.
        clusters: Size of each cluster of near-duplicates.
        largest: First joke and size of each of the largest clusters.
    """

    sizes: dict[tuple[str, str], int]
    question_lengths: list[int]
    answer_lengths: list[int]
    scores: dict[str, list[int]]
    clusters: list[int]
    largest: list[tuple[Joke, int]]


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
            (first[cluster].joke, size)
            for cluster, size in clusters.most_common(LARGEST_CLUSTERS)
            if size > 1
        ],
    )


def quantiles(values: Sequence[int]) -> list[int]:
    """Return the `QUANTILES` of some numbers without interpolation."""
    return [int(value) for value in np.quantile(values, QUANTILES, method="nearest")]


def plot(statistics: Statistics, manifest: DataManifest, path: Path) -> None:
    """Plot the statistics to a PNG file.

    Raises:
        DataError: If the file cannot be written.
        ResourceError: If the disk is full.
        MissingDependencyError: If matplotlib is not installed.
    """
    figures = import_optional("matplotlib.figure", "plots need")
    figure = figures.Figure(figsize=(12, 10), layout="constrained")
    (outcomes, reasons), (lengths, scores), (clusters, leak) = figure.subplots(3, 2)

    _plot_outcomes(outcomes, manifest)
    _plot_reasons(reasons, manifest)
    _plot_lengths(lengths, statistics)
    _plot_scores(scores, statistics)
    _plot_clusters(clusters, statistics)
    _plot_leak(leak, manifest)
    with writing(path):
        figure.savefig(path, format="png", dpi=100)


def _plot_outcomes(axes: Any, manifest: DataManifest) -> None:
    names = list(manifest.sources)
    left = np.zeros(len(names))
    for outcome in ("kept", "plain", "dropped"):
        counts = np.array([_total(getattr(manifest.sources[name], outcome)) for name in names])
        axes.barh(names, counts, left=left, label=outcome)
        left += counts
    axes.set(title="Rows read", xlabel="rows")
    axes.legend(loc="lower right")


def _plot_reasons(axes: Any, manifest: DataManifest) -> None:
    reasons = Counter[str]()
    for source in manifest.sources.values():
        reasons.update(source.dropped)
        reasons.update(source.plain)
    shown = reasons.most_common()[::-1]
    axes.barh([name for name, _ in shown], [count for _, count in shown])
    axes.set(title="Not kept, by reason", xlabel="rows", xscale="log" if shown else "linear")


def _plot_lengths(axes: Any, statistics: Statistics) -> None:
    bins = np.arange(0, 301, 10)
    for name, values in (
        ("question", statistics.question_lengths),
        ("answer", statistics.answer_lengths),
    ):
        axes.hist(np.minimum(values, bins[-1]), bins=bins, histtype="step", label=name)
    axes.set(title="Length (300 and more in the last bar)", xlabel="characters", ylabel="jokes")
    axes.legend()


def _plot_scores(axes: Any, statistics: Statistics) -> None:
    for name, values in statistics.scores.items():
        axes.hist(np.log10(np.maximum(values, 1)), bins=30, histtype="step", label=name)
    axes.set(title="Score", xlabel="log10 of the score", ylabel="jokes")
    if statistics.scores:
        axes.legend()


def _plot_clusters(axes: Any, statistics: Statistics) -> None:
    sizes = Counter(statistics.clusters)
    axes.scatter(list(sizes), list(sizes.values()), s=12)
    axes.set(
        title="Clusters of near-duplicates",
        xlabel="jokes",
        ylabel="clusters",
        xscale="log",
        yscale="log",
    )


def _plot_leak(axes: Any, manifest: DataManifest) -> None:
    shares = [100 * entry.copied / max(entry.test, 1) for entry in manifest.leak.values()]
    axes.bar(list(manifest.leak), shares)
    axes.set(title="Test jokes with a near-duplicate in training", ylabel="%", ylim=(0, 100))


def _total(count: int | dict[str, int]) -> int:
    return count if isinstance(count, int) else sum(count.values())
