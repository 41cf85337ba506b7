"""Train the offense classifier (`joker.generation.moderation`) that comes with the package.

    python tools/train_offense_classifier.py prepared labels/offense.csv --measure unseen.csv

Labels are CSV files with the columns ``fingerprint`` and ``offense``: 0 fine for anyone, 1
edgy or topical, 2 offensive. The first file's readers also decide the threshold, by
cross-validation; ``--measure`` names labels that nothing has been tuned on.

The few labels say how words relate to the moderation list's categories; many unlabeled
jokes say which words keep company with which category (naive Bayes). Both together become
one weight for each hashed feature.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack, vstack
from sklearn.linear_model import LogisticRegression

from joker.core.joke import Joke
from joker.core.similarity import normalize_joke
from joker.data.prepared import PreparedData
from joker.generation.moderation import (
    BUCKETS,
    CATEGORIES,
    SEVERITIES,
    WORD_BUCKETS,
    Flag,
    Moderator,
    OffenseClassifier,
    features,
    fold_words,
)

OUT = Path(__file__).parents[1] / "src" / "joker" / "generation" / "offense.npz"
OFFENSIVE = 2
LEAST_JOKES = 8
"""A feature of fewer unlabeled jokes tells nothing of the company it keeps."""
COMPANY = 0.1
"""Scale of the unlabeled jokes' evidence; the penalty makes small evidence count less."""
REGULARIZATION = 0.1
"""Inverse strength of the L2 penalty."""
FOLDS = 8
CAUGHT = 0.85


@dataclass(frozen=True, slots=True)
class Labeled:
    """Labeled jokes.

    Attributes:
        features: One row of `BUCKETS` features for each joke.
        offensive: Whether its reader found it offensive.
        ruled: Whether an offensive rule of the list flags it.
        flagged: Whether any rule flags it.
        categories: The categories of its flags.
    """

    features: csr_array
    offensive: NDArray[np.bool_]
    ruled: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    categories: list[set[str]]

    def take(self, rows: NDArray[np.int64]) -> Labeled:
        """Return some of the jokes."""
        return Labeled(
            self.features[rows],
            self.offensive[rows],
            self.ruled[rows],
            self.flagged[rows],
            [self.categories[row] for row in rows],
        )


def main() -> None:
    """Train, choose a threshold, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prepared", type=Path, help="folder of `joker data prepare`")
    parser.add_argument("labels", type=Path, nargs="+", help="CSV files of labels to learn from")
    parser.add_argument("--measure", type=Path, help="CSV file of unseen labels")
    parser.add_argument("--caught", type=float, default=CAUGHT, help="share of offense to catch")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write")
    options = parser.parse_args()
    data = PreparedData.open(options.prepared)
    train = [one.joke for one in data.jokes("train")]
    jokes = {fingerprint(joke): joke for joke in train}
    jokes |= {fingerprint(one.joke): one.joke for one in data.jokes("test")}
    parts = [read_labels(path, jokes) for path in options.labels]
    company = keep_company(train)
    threshold = choose_threshold(parts, company, options.caught)
    weights, intercept = fit(parts, company)
    classifier = quantize(weights, threshold - intercept)
    classifier.save(options.out)
    print(f"{options.out.stat().st_size:,} bytes")
    if options.measure:
        measure(read_labels(options.measure, jokes), classifier)


def fingerprint(joke: Joke) -> str:
    """Return what stands for a joke in a file of labels."""
    return hashlib.blake2b(normalize_joke(joke).encode()).hexdigest()[:16]


def read_labels(path: Path, jokes: dict[str, Joke]) -> Labeled:
    """Read a file's labels of jokes that the prepared folder holds."""
    with path.open(encoding="utf-8", newline="") as file:
        found = [(jokes.get(row["fingerprint"]), row["offense"]) for row in csv.DictReader(file)]
    rows = [(joke, offense) for joke, offense in found if joke]
    flags = [shipped_rules().match_rules(text_of(joke)) for joke, _ in rows]
    return Labeled(
        vectorize([joke for joke, _ in rows], flags),
        np.array([int(offense) == OFFENSIVE for _, offense in rows]),
        np.array([any(flag.severity == "offensive" for flag in each) for each in flags]),
        np.array([bool(each) for each in flags]),
        [{flag.category for flag in each} for each in flags],
    )


@cache
def shipped_rules() -> Moderator:
    """Return the package's list without the classifier that is yet to be trained."""
    source = resources.files("joker.generation").joinpath("moderation.txt")
    return Moderator(source.read_text(encoding="utf-8"))


def text_of(joke: Joke) -> str:
    """Return a joke as moderation reads it."""
    return f"{joke.question}\n{joke.answer}"


def vectorize(jokes: Sequence[Joke], flags: Sequence[Sequence[Flag]]) -> csr_array:
    """Return jokes as rows of features."""
    rows = []
    for joke, each in zip(jokes, flags, strict=True):
        rows.append(features(fold_words(text_of(joke)), each))
    starts = np.cumsum([0, *(len(buckets) for buckets, _ in rows)], dtype=np.int32)
    buckets = np.concatenate([buckets for buckets, _ in rows])
    values = np.concatenate([values for _, values in rows])
    return csr_array((values, buckets, starts), shape=(len(rows), BUCKETS))


def keep_company(jokes: Sequence[Joke]) -> NDArray[np.float64]:
    """Return for each bucket how much likelier its words are where the list flags a joke.

    Returns:
        Logarithms of likelihood ratios, `BUCKETS` by kinds of flags; 0 for rare words and rules.
    """
    flags = [shipped_rules().match_rules(text_of(joke)) for joke in jokes]
    kinds = list(product(CATEGORIES, SEVERITIES))
    verdicts = np.zeros((len(jokes), len(kinds) + 1), np.bool_)
    for row, each in zip(verdicts, flags, strict=True):
        row[[kinds.index((flag.category, flag.severity)) for flag in each]] = True
        row[-1] = any(flag.severity == "offensive" for flag in each)
    return log_ratios(vectorize(jokes, [()] * len(jokes)), verdicts)


def log_ratios(jokes: csr_array, verdicts: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the naive-Bayes weight of each bucket for each column of verdicts."""
    holds = (jokes > 0).astype(np.float64)
    flagged = holds.T @ verdicts.astype(np.float64)
    jokes_with = np.asarray(holds.sum(axis=0)).ravel()[:, None]
    totals = verdicts.sum(axis=0)
    ratios = np.log((flagged + 1) / (totals + 2)) - np.log(
        (jokes_with - flagged + 1) / (len(verdicts) - totals + 2)
    )
    ratios[(jokes_with < LEAST_JOKES).ravel()] = 0
    ratios[WORD_BUCKETS:] = 0
    weights: NDArray[np.float64] = COMPANY * ratios
    return weights


def fit(
    parts: Sequence[Labeled], company: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Return the weight of each bucket and the intercept of a logistic regression."""
    rows = vstack([part.features for part in parts]).tocsr()
    offensive = np.concatenate([part.offensive for part in parts])
    model: Any = LogisticRegression(C=REGULARIZATION, solver="liblinear")
    model.fit(hstack([rows, csr_array(rows @ company)]).tocsr(), offensive)
    direct, by_company = model.coef_[0, :BUCKETS], model.coef_[0, BUCKETS:]
    return direct + company @ by_company, float(model.intercept_[0])


def choose_threshold(
    parts: Sequence[Labeled], company: NDArray[np.float64], caught: float
) -> float:
    """Return the highest score that, with the list, catches a share of the first part's offense."""
    first, *rest = parts
    scores = np.empty(len(first.offensive))
    order = np.random.default_rng(0).permutation(len(scores))
    for fold in np.array_split(order, FOLDS):
        kept = np.setdiff1d(order, fold)
        weights, intercept = fit([first.take(kept), *rest], company)
        scores[fold] = first.features[fold] @ weights + intercept
    scores[first.ruled], scores[~first.flagged] = np.inf, -np.inf
    threshold = float(np.quantile(scores[first.offensive], 1 - caught, method="lower"))
    report("cross-validated", first, scores >= threshold)
    return threshold


def quantize(weights: NDArray[np.float64], threshold: float) -> OffenseClassifier:
    """Return a classifier with weights of one byte."""
    scale = float(np.abs(weights).max()) / 127
    return OffenseClassifier(np.round(weights / scale).astype(np.int8), scale, threshold)


def measure(unseen: Labeled, classifier: OffenseClassifier) -> None:
    """Print what rules and classifier make of labels that nothing was tuned on."""
    scores = unseen.features @ classifier.weights * classifier.scale
    withheld = unseen.ruled | (unseen.flagged & (scores >= classifier.threshold))
    report("unseen, offensive rules alone", unseen, unseen.ruled)
    report("unseen, rules and classifier", unseen, withheld)
    for category in CATEGORIES:
        flagged = np.array([category in found for found in unseen.categories])
        if flagged.any():
            report(f"unseen, {category}: any flag", unseen, flagged)
            report(f"unseen, {category}: withheld", unseen, flagged & withheld)


def report(name: str, labeled: Labeled, withheld: NDArray[np.bool_]) -> None:
    """Print how many jokes are withheld, and how many of those and of all offense that is."""
    right = int((withheld & labeled.offensive).sum())
    print(
        f"{name}: {withheld.mean():.1%} withheld ({withheld.sum()}), precision "
        f"{right / max(withheld.sum(), 1):.1%}, caught {right / labeled.offensive.sum():.1%}"
    )


if __name__ == "__main__":
    main()
