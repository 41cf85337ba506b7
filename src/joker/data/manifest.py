"""The manifest of a prepared folder: where its jokes come from, in numbers.

`joker.data.prepared` writes and reads it as ``prepared.json``.
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
    """Outcomes of the rows of one input: read = kept + plain + dropped.

    Attributes:
        read: Rows read.
        kept: Rows that became jokes of question and answer.
        plain: Rows kept separately as plain jokes, by reason.
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
            raise ValueError(
                f"{self.read} rows read are not the sum of those kept, plain and dropped"
            )


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
    """How much of one source another one contains, counted before duplicates are dropped.

    Attributes:
        source: The source whose jokes are counted.
        other: The source that may contain them.
        questions: Jokes of ``source`` that end with a question mark.
        exact: Those with an equal joke in ``other``.
        near: Those with a near-duplicate in ``other``, including equal jokes.
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
        clusters: Clusters of near-duplicates, including those of a single joke.
        sources: Outcomes of each input's rows.
        leak: Test jokes with near-duplicates in training, for each kind of split.
        overlap: Shared jokes of each pair of sources.
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
            raise ValueError("the number of jokes is not the sum of those kept per source")
