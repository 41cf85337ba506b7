"""Ingestion: every row of every source, read, parsed and counted.

Every row becomes a joke, a plain joke or a dropped row.
"""

from __future__ import annotations

import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from typing import NamedTuple

from joker.core.errors import ResourceError
from joker.core.joke import Joke
from joker.data.parsing import Parsed, parse_pair, parse_post
from joker.data.prepared import SourceCounts
from joker.data.sources import Kind, Row, Source, read_rows

_BATCH_ROWS = 4_000
_PROCESSES = min(8, os.cpu_count() or 1)


class Origin(NamedTuple):
    """Where a row came from: its source, its id there, its score if it has one."""

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
    """All rows that were read, sorted by outcome.

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

    def gather(self, source: Source, report: Callable[[str], None]) -> None:
        """Read and parse one source, reporting progress now and then."""
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
                    done, parsed = pending.popleft()
                    yield from zip(done, parsed.result(), strict=True)
            for done, parsed in pending:
                yield from zip(done, parsed.result(), strict=True)
    except BrokenProcessPool as error:
        raise ResourceError(
            "a process that parses posts was killed, probably because memory ran out; "
            "free some and try again"
        ) from error


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent process, which ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _parse_batch(kind: Kind, rows: Sequence[Row]) -> list[Parsed]:
    parse = parse_post if kind == "posts" else parse_pair
    return [parse(row.question, row.answer) for row in rows]
