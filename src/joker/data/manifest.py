"""The manifest of a prepared folder: how its jokes came about, in figures.

Plain values, written and read as ``prepared.json`` by `joker.data.prepared`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from joker.core.errors import DataError

FORMAT_VERSION = 1

SplitKind = Literal["clusters", "random"]


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """What became of the rows of one input: read = kept + plain + dropped.

    Attributes:
        read: Rows read.
        kept: Rows that became jokes of question and answer.
        plain: Rows kept apart as plain jokes, by reason.
        dropped: Rows left out, by reason.
        changed: Rows that a cleaning or parsing rule changed, by rule; a row may count for several.

    Raises:
        ValueError: If the rows do not add up.
    """

    read: int
    kept: int
    plain: dict[str, int]
    dropped: dict[str, int]
    changed: dict[str, int]

    def __post_init__(self) -> None:
        if self.read != self.kept + sum(self.plain.values()) + sum(self.dropped.values()):
            raise ValueError(f"{self.read} rows read are not those kept, plain and dropped")


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class DataManifest:
    """What ``prepared.json`` says.

    Attributes:
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
        format_version: Version of the folder's format.

    Raises:
        ValueError: If the jokes do not add up.
    """

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
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        kept = sum(source.kept for source in self.sources.values())
        plain = sum(sum(source.plain.values()) for source in self.sources.values())
        if (kept, plain) != (self.train + self.test, self.plain):
            raise ValueError("the jokes are not those kept of the sources")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Any, source: str) -> DataManifest:
        """Build a manifest from parsed JSON; ``source`` is named in errors."""
        if not isinstance(fields, dict) or "fingerprint" not in fields:
            raise DataError(f"{source} is not the manifest of a prepared folder")
        if fields.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{source} has format version {fields.get('format_version')!r}, this package reads "
                f"{FORMAT_VERSION}; prepare the data again with 'joker data prepare'"
            )
        try:
            return cls(
                **{
                    **fields,
                    "sources": {k: SourceCounts(**v) for k, v in fields["sources"].items()},
                    "leak": {k: Leak(**v) for k, v in fields["leak"].items()},
                    "overlap": [Overlap(**entry) for entry in fields["overlap"]],
                }
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{source} is garbled: {error}") from error
