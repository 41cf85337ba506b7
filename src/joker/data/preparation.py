"""Preparation: reads joke files and writes a prepared folder.

    read ─▶ clean and parse ─▶ find near-duplicates ─▶ drop duplicates ─▶ split ─▶ write

Every row is kept as a joke, kept as a plain joke, or dropped for a reason that the manifest counts.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice, permutations
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from joker.core.errors import DataError, ResourceError, plural
from joker.core.joke import Joke
from joker.data.near_duplicates import NearDuplicates, find_near_duplicates
from joker.data.parsing import Parsed, parse_pair, parse_post
from joker.data.prepared import (
    DROPPED,
    JOKES,
    PLAIN,
    DataManifest,
    Leak,
    Overlap,
    SourceCounts,
    SplitKind,
    TableRows,
    check_target,
    fingerprint,
    write_prepared,
)
from joker.data.sources import Kind, Row, Source, read_rows

TEST_SHARE = 0.1
DUPLICATE = "duplicate"
"""The reason for dropping all but one of several equal jokes in a cluster split."""

_BATCH_ROWS = 4_000
_PROCESSES = min(8, os.cpu_count() or 1)

Mask = NDArray[np.bool_]


class _SplitMasks(NamedTuple):
    """Which jokes are test jokes, and which are kept."""

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
    """Prepare jokes from files, write them into a folder and return its manifest.

    Large files are parsed by several processes, so a script that calls this needs the usual
    ``if __name__ == "__main__":``.

    Args:
        sources: The files; their names must differ.
        out: The folder to write.
        split: ``clusters`` keeps one of equal jokes and puts whole clusters of near-duplicates
            into training or test; ``random`` keeps all and draws each separately, as the
            original does.
        seed: The split's seed.
        force: Replace an existing prepared folder.
        report: Called with lines about the progress.

    Raises:
        DataError: If an input or the target cannot be used, or too few jokes are left to split.
        ResourceError: If a process runs out of memory, or the disk is full.
        MissingDependencyError: If pyarrow is not installed.
    """
    report = report or (lambda line: None)  # noqa: ARG005
    _check_sources(sources)
    check_target(out, force=force)
    ingestion = _ingest(sources, report)
    report(f"comparing {len(ingestion.jokes):,} {plural(len(ingestion.jokes), 'joke')}")
    copies = find_near_duplicates(ingestion.jokes)
    splits = _splits(copies, ingestion.origins, seed)
    leak = {kind: _leak(copies, masks) for kind, masks in splits.items()}
    if not (leak[split].train and leak[split].test):
        raise DataError(
            "all jokes are near-duplicates of one another and cannot be split; add others"
        )
    for index in np.flatnonzero(~splits[split].kept).tolist():
        ingestion.drop(index, DUPLICATE)
    report("writing")
    rows = _rows(ingestion, copies.clusters, splits[split])
    manifest = DataManifest(
        fingerprint=fingerprint(rows),
        split=split,
        seed=seed,
        train=leak[split].train,
        test=leak[split].test,
        plain=len(ingestion.plain),
        clusters=int(copies.clusters.max()) + 1,
        sources=ingestion.counts(),
        leak=leak,
        overlap=_overlap(ingestion, copies, [source.name for source in sources]),
    )
    tables: dict[str, TableRows] = {JOKES: rows, PLAIN: ingestion.plain, DROPPED: ingestion.dropped}
    write_prepared(out, tables, manifest, force=force)
    return manifest


def _ingest(sources: Sequence[Source], report: Callable[[str], None]) -> Ingestion:
    """Read and parse all sources."""
    ingestion = Ingestion()
    for source in sources:
        ingestion.add(source, report)
    if len(ingestion.jokes) < 2:
        raise DataError(
            "a split needs at least two question-and-answer jokes; these files contain only "
            f"{len(ingestion.jokes)}"
        )
    return ingestion


class Origin(NamedTuple):
    """Where a row came from: its source, its id there, and its score if it has one."""

    source: str
    source_id: str
    score: int | None


@dataclass(slots=True)
class _Tally:
    """Outcomes of one source's rows so far."""

    read: int = 0
    kept: int = 0
    plain: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)


class Ingestion:
    """All rows that were read: each becomes a joke, a plain joke or a dropped row.

    Attributes:
        jokes: Jokes of question and answer, in the order they were read.
        origins: Where each came from.
        plain: Title, text, origin and reason of every plain joke.
        dropped: Source, id and reason of every dropped row.
    """

    def __init__(self) -> None:
        self.jokes: list[Joke] = []
        self.origins: list[Origin] = []
        self.plain: list[tuple[str, str, str, str, int | None, str]] = []
        self.dropped: list[tuple[str, str, str]] = []
        self._tallies: dict[str, _Tally] = {}

    def add(self, source: Source, report: Callable[[str], None]) -> None:
        """Read and parse a source."""
        tally = self._tallies[source.name] = _Tally()
        for row, parsed in _parse(source.kind, read_rows(source)):
            tally.read += 1
            if tally.read % _BATCH_ROWS == 0:
                report(f"reading {source.name}: {tally.read:,} rows")
            tally.changed.update(parsed.changes)
            origin = Origin(source.name, row.source_id, row.score)
            if parsed.outcome == "joke":
                tally.kept += 1
                self.jokes.append(Joke(parsed.question, parsed.answer))
                self.origins.append(origin)
            elif parsed.outcome == "plain":
                tally.plain[parsed.reason] += 1
                self.plain.append((parsed.question, parsed.answer, *origin, parsed.reason))
            else:
                self._note_dropped(origin, parsed.reason)

    def drop(self, joke: int, reason: str) -> None:
        """Count the joke at an index as dropped; it stays in ``jokes``."""
        origin = self.origins[joke]
        self._tallies[origin.source].kept -= 1
        self._note_dropped(origin, reason)

    def counts(self) -> dict[str, SourceCounts]:
        """Return the outcomes of each source's rows, the most frequent reasons first."""
        return {
            name: SourceCounts(
                tally.read,
                tally.kept,
                *(dict(part.most_common()) for part in (tally.plain, tally.dropped, tally.changed)),
            )
            for name, tally in self._tallies.items()
        }

    def _note_dropped(self, origin: Origin, reason: str) -> None:
        self._tallies[origin.source].dropped[reason] += 1
        self.dropped.append((origin.source, origin.source_id, reason))


def _parse(kind: Kind, rows: Iterator[Row]) -> Iterator[tuple[Row, Parsed]]:
    """Yield rows with their outcomes, in order; many rows are parsed in several processes."""
    batches = iter(lambda: list(islice(rows, _BATCH_ROWS)), [])
    first = next(batches, [])
    if len(first) < _BATCH_ROWS:
        yield from zip(first, _parse_batch(kind, first), strict=True)
        return
    pending: deque[tuple[list[Row], Future[list[Parsed]]]] = deque()
    try:
        with ProcessPoolExecutor(_PROCESSES, get_context("spawn"), _ignore_interrupts) as pool:
            pending.append((first, pool.submit(_parse_batch, kind, first)))
            for batch in batches:
                pending.append((batch, pool.submit(_parse_batch, kind, batch)))
                if len(pending) > 2 * _PROCESSES:
                    oldest, parsed = pending.popleft()
                    yield from zip(oldest, parsed.result(), strict=True)
            for batch, parsed in pending:
                yield from zip(batch, parsed.result(), strict=True)
    except BrokenProcessPool as error:
        raise ResourceError(
            "a process that parses posts was killed, probably because memory ran out; "
            "free some memory and try again"
        ) from error


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _parse_batch(kind: Kind, rows: Sequence[Row]) -> list[Parsed]:
    parse = parse_post if kind == "posts" else parse_pair
    return [parse(row.question, row.answer) for row in rows]


def _splits(copies: NearDuplicates, origins: Sequence[Origin], seed: int) -> dict[str, _SplitMasks]:
    """Return both splits."""
    unique = _best_of_equal(copies, origins)
    keys = [f"{origin.source}\0{origin.source_id}" for origin in origins]
    test = split_by_cluster(keys, copies.clusters, seed, counted=unique)
    return {
        "clusters": _SplitMasks(test, kept=unique),
        "random": _SplitMasks(split_by_joke(keys, seed), kept=np.ones_like(unique)),
    }


def _rows(ingestion: Ingestion, clusters: NDArray[np.int64], split: _SplitMasks) -> TableRows:
    """Return the rows of the table of jokes."""
    flags = (split.test.tolist(), split.kept.tolist())
    columns = zip(ingestion.jokes, ingestion.origins, clusters.tolist(), *flags, strict=True)
    return [
        (joke.question, joke.answer, *origin, cluster, "test" if is_test else "train")
        for joke, origin, cluster, is_test, is_kept in columns
        if is_kept
    ]


def _check_sources(sources: Sequence[Source]) -> None:
    if not sources:
        raise DataError(
            "there is nothing to prepare: give at least one file (--jokes, --qa-jokes, --rjokes)"
        )
    name, count = Counter(source.name for source in sources).most_common(1)[0]
    if count > 1:
        raise DataError(f"{count} inputs are named {name!r}; rename the files so that they differ")


def _best_of_equal(copies: NearDuplicates, origins: Sequence[Origin]) -> Mask:
    """Return one of each set of equal jokes: the one with the highest score, or the first."""
    scores = np.array([-np.inf if origin.score is None else origin.score for origin in origins])
    order = np.lexsort((-scores, copies.exact))
    _, firsts = np.unique(copies.exact[order], return_index=True)
    best = np.zeros(len(origins), dtype=np.bool_)
    best[order[firsts]] = True
    return best


def _leak(copies: NearDuplicates, split: _SplitMasks) -> Leak:
    test, train = split.kept & split.test, split.kept & ~split.test
    copied = test & copies.near_duplicate_in(train)
    return Leak(train=int(train.sum()), test=int(test.sum()), copied=int(copied.sum()))


def _overlap(ingestion: Ingestion, copies: NearDuplicates, names: Sequence[str]) -> list[Overlap]:
    is_question = np.array([joke.question.endswith("?") for joke in ingestion.jokes])
    source_of = np.array([origin.source for origin in ingestion.origins])
    overlaps = []
    for name, other in permutations(names, 2):
        mine, theirs = (source_of == name) & is_question, source_of == other
        exact, near = copies.exact_copy_in(theirs), copies.near_duplicate_in(theirs)
        counts = (int((mine & mask).sum()) for mask in (mine, exact, near))
        overlaps.append(Overlap(name, other, *counts))
    return overlaps


def split_by_joke(keys: Sequence[str], seed: int) -> Mask:
    """Mark the test jokes, each drawn separately, as the original does."""
    return split_by_cluster(keys, np.arange(len(keys)), seed, np.ones(len(keys), dtype=np.bool_))


def split_by_cluster(
    keys: Sequence[str], clusters: NDArray[np.int64], seed: int, counted: Mask
) -> Mask:
    """Mark the test jokes, whole clusters at a time.

    Clusters go to the test set while they fit, in the order of a hash of the seed and of their
    first joke's key. So a split is the same on every machine, and adding a source moves few jokes.

    Args:
        keys: A text for each joke.
        clusters: Each joke's cluster.
        seed: The split's seed.
        counted: The jokes of which a tenth are test jokes; the others follow their cluster.
    """
    names, firsts, members = np.unique(clusters, return_index=True, return_inverse=True)
    sizes = np.bincount(members, weights=counted).astype(np.int64)
    hashes = [_hash(keys[first], seed) for first in firsts.tolist()]
    room = max(round(TEST_SHARE * counted.sum()), 1)
    is_test = np.zeros(len(names), dtype=np.bool_)
    for index in sorted(range(len(names)), key=hashes.__getitem__):
        if sizes[index] <= room:
            is_test[index] = True
            room -= sizes[index]
    return is_test[members]


def _hash(key: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=16).digest()
