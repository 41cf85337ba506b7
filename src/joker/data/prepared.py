"""The prepared folder: what `joker data prepare` writes and training and evaluation read.

    jokes.parquet     question, answer, source, source_id, score, cluster, split
    plain.parquet     title, text, source, source_id, score, reason
    dropped.parquet   source, source_id, reason
    prepared.json     the manifest: fingerprint, split, seed, counts, leak, overlap

Only the tables need pyarrow, which the extra ``train`` installs. `joker.data.preparation` writes
the folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from joker.core.errors import DataError, ResourceError, import_optional
from joker.core.joke import Joke
from joker.core.record import read_json, record, write_json

FORMAT_VERSION = 1

MANIFEST = "prepared.json"
JOKES = "jokes.parquet"
PLAIN = "plain.parquet"
DROPPED = "dropped.parquet"

TABLES = {
    JOKES: {
        "question": "string",
        "answer": "string",
        "source": "string",
        "source_id": "string",
        "score": "int64",
        "cluster": "int64",
        "split": "string",
    },
    PLAIN: {
        "title": "string",
        "text": "string",
        "source": "string",
        "source_id": "string",
        "score": "int64",
        "reason": "string",
    },
    DROPPED: {"source": "string", "source_id": "string", "reason": "string"},
}
"""The columns of each table and their Arrow types."""

_NEED = "prepared data needs"

Split = Literal["train", "test"]
SplitKind = Literal["clusters", "random"]
TableRows = Sequence[tuple[Any, ...]]
"""Rows of a table, with values in the order of its columns."""


@record(DataError)
class SourceCounts:
    """Outcomes of the rows of one input: read = kept + plain + dropped.

    Attributes:
        read: Rows read.
        kept: Rows that became jokes of question and answer.
        plain: Rows kept separately as plain jokes, by reason.
        dropped: Rows left out, by reason.
        changed: Rows changed, by cleaning or parsing rule; a row may count for several.
    """

    read: int
    kept: int
    plain: dict[str, int]
    dropped: dict[str, int]
    changed: dict[str, int]

    def __post_init__(self) -> None:
        if self.read != self.kept + sum(self.plain.values()) + sum(self.dropped.values()):
            raise ValueError(f"rows read ({self.read}) must equal kept + plain + dropped")


@record(DataError)
class Leak:
    """How many of the test jokes are copied, that is, have a near-duplicate in training."""

    train: int
    test: int
    copied: int


@record(DataError)
class Overlap:
    """How many jokes of one source another one contains, before duplicates are dropped.

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
            raise ValueError("the number of jokes is not the sum of those kept from each source")


@dataclass(frozen=True, slots=True)
class PreparedJoke:
    """A joke with its origin, its cluster of near-duplicates and its split."""

    joke: Joke
    source: str
    source_id: str
    score: int | None
    cluster: int
    split: Split


@dataclass(frozen=True, slots=True)
class PreparedData:
    """A prepared folder and its manifest."""

    path: Path
    manifest: DataManifest

    @classmethod
    def open(cls, path: Path) -> PreparedData:
        """Read a prepared folder's manifest.

        Raises:
            DataError: If it is not a prepared folder, or one of its files is missing or damaged.
        """
        if not path.is_dir():
            raise DataError(
                f"there is no prepared folder at {path}; make one with 'joker data prepare'"
            )
        for name in (MANIFEST, JOKES):
            if not (path / name).is_file():
                raise DataError(
                    f"{path} is not a complete prepared folder: {name} is missing; "
                    "make one with 'joker data prepare'"
                )
        manifest = read_json(
            DataManifest,
            path / MANIFEST,
            DataError,
            remedy="prepare the data again with 'joker data prepare'",
        )
        return cls(path, manifest)

    def jokes(self, split: Split) -> list[PreparedJoke]:
        """Return the jokes of one split in the order they were read.

        Raises:
            DataError: If the table is damaged or does not match the manifest.
        """
        rows = self.rows(JOKES)
        if fingerprint(rows) != self.manifest.fingerprint:
            raise DataError(
                f"{self.path / JOKES} does not match {MANIFEST}; prepare the data again"
            )
        return [
            PreparedJoke(Joke(question, answer), source, source_id, score, cluster, row_split)
            for question, answer, source, source_id, score, cluster, row_split in rows
            if row_split == split
        ]

    def rows(self, table: str) -> TableRows:
        """Return the rows of `JOKES`, `PLAIN` or `DROPPED`.

        Raises:
            DataError: If the file is missing or damaged.
            MissingDependencyError: If pyarrow is not installed.
        """
        parquet = import_optional("pyarrow.parquet", _NEED)
        names = list(TABLES[table])
        try:
            columns = parquet.read_table(self.path / table, columns=names).to_pydict()
            return list(zip(*(columns[name] for name in names), strict=True))
        except Exception as error:  # pyarrow raises its own errors and the system's
            raise DataError(f"cannot read {self.path / table}: {error}") from error


def fingerprint(jokes: TableRows) -> str:
    """Return the SHA-256 of the rows of `JOKES`, independent of how the file encodes them."""
    digest = hashlib.sha256()
    for row in jokes:
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def check_target(path: Path, *, force: bool) -> None:
    """Check that a prepared folder may be written at a path.

    Raises:
        DataError: If the path exists and is not a prepared folder, or ``force`` is not set.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MANIFEST).is_file():
        raise DataError(f"{path} exists and is not a prepared folder; choose another path")
    if not force:
        raise DataError(f"{path} already contains prepared data; replace it with --force")


def write_prepared(
    path: Path, tables: Mapping[str, TableRows], manifest: DataManifest, *, force: bool
) -> None:
    """Write a prepared folder atomically.

    Args:
        path: The folder.
        tables: The rows of every table in `TABLES`.
        manifest: Written as ``prepared.json``.
        force: Replace an existing prepared folder.

    Raises:
        DataError: If the folder cannot be written.
        ResourceError: If the disk is full.
        MissingDependencyError: If pyarrow is not installed.
    """
    check_target(path, force=force)
    path = path.resolve()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            new, old = Path(folder, "new"), Path(folder, "old")
            new.mkdir()
            for name in TABLES:
                _write_table(new / name, tables[name], TABLES[name])
            write_json(new / MANIFEST, manifest)
            if path.exists():
                path.rename(old)
            new.rename(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a `DataError` that names the path, or a `ResourceError`."""
    try:
        yield
    except OSError as error:
        kind = ResourceError if error.errno == errno.ENOSPC else DataError
        raise kind(f"cannot write {path}: {error.strerror or error}") from error


def _write_table(path: Path, rows: TableRows, types: Mapping[str, str]) -> None:
    pyarrow = import_optional("pyarrow", _NEED)
    columns = {
        name: pyarrow.array([row[index] for row in rows], kind)
        for index, (name, kind) in enumerate(types.items())
    }
    parquet = import_optional("pyarrow.parquet", _NEED)
    parquet.write_table(pyarrow.table(columns), path, compression="zstd")
