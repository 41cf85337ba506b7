"""The manifest of a prepared folder: where its jokes come from, in numbers.

Plain values, written and read as ``prepared.json`` by `joker.data.prepared`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from joker.core.errors import DataError
from joker.core.record import record

FORMAT_VERSION = 1

SplitKind = Literal["clusters", "random"]


@record(DataError)
class SourceCounts:
    """What became of the rows of one input: read = kept + plain + dropped.

    Attributes:
        read: Rows read.
        kept: Rows that became jokes of question and answer.
        plain: Rows kept apart as plain jokes, by reason.
        dropped: Rows left out, by reason.
        changed: Rows that a cleaning or parsing rule changed, by rule; a row may count for several.
    """

    read: int
    kept: int
    plain: dict[str, int]
    dropped: dict[str, int]
    changed: dict[str, int]

    def __post_init__(self) -> None:
        if self.read != self.kept + sum(self.plain.values()) + sum(self.dropped.values()):
            raise ValueError(f"{self.read} rows read are not those kept, plain and dropped")


@record(DataError)
class Leak:
    """How many test jokes have a near-duplicate in training.

    Attributes:
        train: Training jokes under this split.
        test: Test jokes.
        copied: Those with a near-duplicate in training.
    """

    train: int
    test: int
    copied: int


@record(DataError)
class Overlap:
    """How much of one source another already holds, counted before duplicates are dropped.

    Attributes:
        source: The source looked at.
        other: The source looked in.
        questions: Jokes of ``source`` that end with a question mark.
        exact: Those with an equal joke in ``other``.
        near: Those with a near-duplicate in ``other``, equal ones included.
    """

    source: str
    other: str
    questions: int
    exact: int
    near: int


@record(DataError)
class DataManifest:
    """What ``prepared.json`` says.

    Attributes:
        format_version: Version of the folder's format.
        fingerprint: SHA-256 of all jokes with their sources, clusters and split, in hexadecimal.
        split: How test jokes were drawn.
        seed: The split's seed.
        train: Jokes to train on.
        test: Jokes to test on.
        plain: Plain jokes.
        clusters: Clusters of near-duplicates, those of a single joke included.
        sources: What became of each input's rows.
        leak: Under each kind of split, whichever was chosen, the test jokes with near-duplicates
            in training.
        overlap: Shared jokes of every two sources.
    """

    format_version: int = Field(default=FORMAT_VERSION, kw_only=True)
    fingerprint: str
    split: SplitKind
    seed: int
    train: int
    test: int
    plain: int
    clusters: int
    sources: dict[str, SourceCounts]
    leak: dict[str, Leak]
    overlap: list[Overlap]

    def __post_init__(self) -> None:
        kept = sum(source.kept for source in self.sources.values())
        plain = sum(sum(source.plain.values()) for source in self.sources.values())
        if (kept, plain) != (self.train + self.test, self.plain):
            raise ValueError("the jokes are not those kept of the sources")
