"""Preparation: files in, a prepared folder out.

    read ─▶ clean and parse ─▶ find near-duplicates ─▶ drop duplicates ─▶ split ─▶ write

Every row is kept, plain, or dropped for a reason that the manifest counts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from joker.core.errors import DataError
from joker.data.ingest import Ingestion, Origin
from joker.data.near_duplicates import NearDuplicates, find_near_duplicates
from joker.data.prepared import (
    DROPPED,
    JOKES,
    PLAIN,
    DataManifest,
    Leak,
    Overlap,
    SplitKind,
    TableRows,
    check_target,
    fingerprint,
    write_prepared,
)
from joker.data.sources import Source

TEST_SHARE = 0.1
DUPLICATE = "duplicate"
"""The reason for dropping all but one of equal jokes in a cluster split."""

Mask = NDArray[np.bool_]


class _Split(NamedTuple):
    """Which jokes are for testing, and which are kept."""

    test: Mask
    kept: Mask


def prepare(
    sources: Sequence[Source],
    out: Path,
    *,
    split: SplitKind = "clusters",
    seed: int = 1,
    force: bool = False,
    report: Callable[[str], None] | None = None,
) -> DataManifest:
    """Prepare jokes from files and write them into a folder.

    Files of more than a few thousand rows are parsed by several processes, so a script
    that calls this needs the usual ``if __name__ == "__main__":``.

    Args:
        sources: The files; their names must differ.
        out: The folder to write.
        split: ``clusters`` keeps one of equal jokes and puts whole clusters of near-duplicates
            into training or test; ``random`` keeps all and draws each separately, as the
            original does.
        seed: The split's seed.
        force: Replace an existing prepared folder.
        report: Called with a line about the work in progress.

    Returns:
        The manifest that was written.

    Raises:
        DataError: If an input or the target cannot be used, or too few jokes are left to split.
        ResourceError: If a process runs out of memory, or the disk is full.
        MissingPartError: If pyarrow is not installed.
    """
    report = report or (lambda line: None)  # noqa: ARG005
    _check_sources(sources)
    check_target(out, force=force)
    ingest = _ingest(sources, report)
    report(f"comparing {len(ingest.jokes):,} jokes")
    copies = find_near_duplicates(ingest.jokes)
    splits = _splits(copies, ingest.origins, seed)
    leak = {kind: _leak(copies, each) for kind, each in splits.items()}
    _check_both_parts(leak[split])
    for index in np.flatnonzero(~splits[split].kept).tolist():
        ingest.drop(index, DUPLICATE)
    report("writing")
    rows = _rows(ingest, copies.clusters, splits[split])
    manifest = DataManifest(
        fingerprint=fingerprint(rows),
        split=split,
        seed=seed,
        train=leak[split].train,
        test=leak[split].test,
        plain=len(ingest.plain),
        clusters=int(copies.clusters.max()) + 1,
        sources=ingest.counts(),
        leak=leak,
        overlap=_overlap(ingest, copies, [source.name for source in sources]),
    )
    tables: dict[str, TableRows] = {JOKES: rows, PLAIN: ingest.plain, DROPPED: ingest.dropped}
    write_prepared(out, tables, manifest, force=force)
    return manifest


def _check_both_parts(counts: Leak) -> None:
    """Refuse a split that leaves nothing to train on, or nothing to test with."""
    if not (counts.train and counts.test):
        raise DataError(
            "all jokes are near-duplicates of one another and cannot be split; add others"
        )


def _ingest(sources: Sequence[Source], report: Callable[[str], None]) -> Ingestion:
    """Read and parse all rows of the sources."""
    ingest = Ingestion()
    for source in sources:
        ingest.gather(source, report)
    if len(ingest.jokes) < 2:
        raise DataError(
            f"only {len(ingest.jokes)} question-and-answer jokes are left of these files; "
            "a split needs at least two"
        )
    return ingest


def _splits(copies: NearDuplicates, origins: Sequence[Origin], seed: int) -> dict[str, _Split]:
    """Return the jokes split in every way."""
    unique = _best_of_equal(copies, origins)
    keys = [f"{origin.source}\0{origin.source_id}" for origin in origins]
    test = split_by_cluster(keys, copies.clusters, seed, counted=unique)
    return {
        "clusters": _Split(test, kept=unique),
        "random": _Split(split_by_joke(keys, seed), kept=np.ones_like(unique)),
    }


def _rows(ingest: Ingestion, clusters: NDArray[np.int64], split: _Split) -> TableRows:
    """Return the rows of the jokes that are kept, in the columns of the prepared folder."""
    flags = (split.test.tolist(), split.kept.tolist())
    marked = zip(ingest.jokes, ingest.origins, clusters.tolist(), *flags, strict=True)
    return [
        (joke.question, joke.answer, *origin, cluster, "test" if tested else "train")
        for joke, origin, cluster, tested, keep in marked
        if keep
    ]


def _check_sources(sources: Sequence[Source]) -> None:
    if not sources:
        raise DataError(
            "there is nothing to prepare: give at least one file (--jokes, --qa-jokes, --rjokes)"
        )
    name, count = Counter(source.name for source in sources).most_common(1)[0]
    if count > 1:
        raise DataError(f"{count} inputs are called {name!r}; rename the files so that they differ")


def _best_of_equal(copies: NearDuplicates, origins: Sequence[Origin]) -> Mask:
    """Return one of each set of equal jokes: the one with the highest score, or the first."""
    scores = np.array([-np.inf if origin.score is None else origin.score for origin in origins])
    order = np.lexsort((-scores, copies.exact))
    _, firsts = np.unique(copies.exact[order], return_index=True)
    best = np.zeros(len(origins), dtype=np.bool_)
    best[order[firsts]] = True
    return best


def _leak(copies: NearDuplicates, split: _Split) -> Leak:
    tested, trained = split.kept & split.test, split.kept & ~split.test
    copied = tested & copies.near_duplicate_in(trained)
    return Leak(train=int(trained.sum()), test=int(tested.sum()), copied=int(copied.sum()))


def _overlap(ingest: Ingestion, copies: NearDuplicates, names: Sequence[str]) -> list[Overlap]:
    asks = np.array([joke.question.endswith("?") for joke in ingest.jokes])
    where = np.array([origin.source for origin in ingest.origins])
    entries = []
    for name, other in permutations(names, 2):
        mine, theirs = (where == name) & asks, where == other
        exact, near = copies.exact_copy_in(theirs), copies.near_duplicate_in(theirs)
        counts = (int((mine & flags).sum()) for flags in (mine, exact, near))
        entries.append(Overlap(name, other, *counts))
    return entries


def split_by_joke(keys: Sequence[str], seed: int) -> Mask:
    """Mark the test jokes, each drawn separately, as the original does."""
    return split_by_cluster(keys, np.arange(len(keys)), seed, np.ones(len(keys), dtype=np.bool_))


def split_by_cluster(
    keys: Sequence[str], clusters: NDArray[np.int64], seed: int, counted: Mask
) -> Mask:
    """Mark the test jokes, whole clusters at a time.

    Clusters are sorted by a hash of the seed and of their first joke's key, and in this order go
    to the test set while they fit. So a split is the same on every machine, and adding a source
    moves few jokes.

    Args:
        keys: A text for each joke.
        clusters: Each joke's cluster.
        seed: Any whole number.
        counted: The jokes of which a tenth goes to the test set; others go with their cluster.
    """
    names, firsts, members = np.unique(clusters, return_index=True, return_inverse=True)
    sizes = np.bincount(members, weights=counted).astype(np.int64)
    draws = [_draw(keys[first], seed) for first in firsts.tolist()]
    wanted = max(round(TEST_SHARE * counted.sum()), 1)
    chosen = np.zeros(len(names), dtype=np.bool_)
    for index in sorted(range(len(names)), key=draws.__getitem__):
        if sizes[index] <= wanted:
            chosen[index] = True
            wanted -= sizes[index]
    return chosen[members]


def _draw(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=16).digest()
