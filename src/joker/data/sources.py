"""Sources: joke files as rows, in common encodings, and where to download the public ones.

The columns of the two public sets are known; any other CSV or JSONL file works as well.
"""

from __future__ import annotations

import codecs
import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from joker.core.errors import DataError, import_optional, plural

Kind = Literal["pairs", "posts"]

MAX_FIELD_LENGTH = 2**24
"""Maximum number of characters of a field; otherwise an unclosed quote would swallow the file."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of jokes.

    Attributes:
        name: Name under which the jokes of this file are counted.
        path: The file, ``.csv`` or ``.jsonl``.
        kind: ``pairs`` for questions and answers, ``posts`` for titles and bodies of posts.
        question: Column of the question or title; letter case does not matter.
        answer: Column of the answer or body.
    """

    name: str
    path: Path
    kind: Kind
    question: str
    answer: str

    @classmethod
    def qa_jokes(cls, path: Path) -> Source:
        """Return "Question-Answer Jokes": ``jokes.csv`` with ID, Question, Answer."""
        return cls("qa-jokes", path, "pairs", "question", "answer")

    @classmethod
    def rjokes(cls, path: Path) -> Source:
        """Return "Reddit /r/Jokes": ``jokes_score_name_clean.csv`` with id, score, q, a, ..."""
        return cls("rjokes", path, "posts", "q", "a")

    @classmethod
    def custom(cls, path: Path, question: str = "question", answer: str = "answer") -> Source:
        """Return any other file of questions and answers, named after the file."""
        return cls(_replace_surrogates(path.stem), path, "pairs", question, answer)


class Row(NamedTuple):
    """One row as it is in the file."""

    source_id: str
    question: str
    answer: str
    score: int | None


def read_rows(source: Source) -> Iterator[Row]:
    """Yield a file's rows.

    Raises:
        DataError: If the file cannot be used, lacks a column or has a malformed row.
    """
    encoding = _detect_encoding(source.path)
    suffix = source.path.suffix.lower()
    if suffix not in (".csv", ".jsonl", ".ndjson"):
        raise DataError(f"{source.path} is neither .csv nor .jsonl")
    records = _read_csv if suffix == ".csv" else _read_jsonl
    number = 0
    try:
        with source.path.open(encoding=encoding, errors=_CP1252, newline="") as file:
            for number, record in enumerate(records(file, source), start=1):
                yield _row(record, source, number)
    except UnicodeError as error:
        raise DataError(f"{source.path} is not text: {error}") from error
    if not number:
        raise DataError(f"{source.path} has no rows")


def _detect_encoding(path: Path) -> str:
    """Return the encoding to read a text file with; refuse other files."""
    try:
        with path.open("rb") as file:
            head = file.read(65536)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; name a file in it") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not head.strip():
        raise DataError(f"{path} is empty")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head:
        raise DataError(f"{path} is a binary file; if it is an archive, unpack it first")
    return "utf-8-sig"


def _decode_as_cp1252(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that are not UTF-8 as Windows-1252, as browsers do."""
    if not isinstance(error, UnicodeDecodeError) or error.encoding.startswith("utf-16"):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


_CP1252 = "joker.cp1252"
codecs.register_error(_CP1252, _decode_as_cp1252)

Record = dict[str, object]


def _read_csv(file: Iterator[str], source: Source) -> Iterator[Record]:
    limit = csv.field_size_limit(MAX_FIELD_LENGTH)
    try:
        reader = csv.reader(file, strict=True)
        header = [name.strip().casefold() for name in next(reader, [])]
        _check_columns(header, source)
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"{source.path}, line {reader.line_num}: {len(fields)} "
                    f"{plural(len(fields), 'field')} where the header "
                    f"has {len(header)}; check the quoting"
                )
            yield dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{source.path}, line {reader.line_num}: broken quoting ({error})"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _read_jsonl(file: Iterator[str], source: Source) -> Iterator[Record]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{source.path}, line {number}: not JSON ({error})") from error
        if not isinstance(record, dict):
            raise DataError(f"{source.path}, line {number}: expected an object with named fields")
        record = {str(key).strip().casefold(): value for key, value in record.items()}
        _check_columns(list(record), source, f", line {number}")
        yield record


def _check_columns(names: list[str], source: Source, where: str = "") -> None:
    for column in (source.question, source.answer):
        if column.casefold() not in names:
            raise DataError(
                f"{source.path}{where} has no column {column!r}; its columns are "
                f"{', '.join(repr(name) for name in names) or 'none'}"
            )


def _row(record: Record, source: Source, number: int) -> Row:
    return Row(
        _replace_surrogates(str(record.get("id") or number)),
        _text(record, source, source.question, number),
        _text(record, source, source.answer, number),
        _score(record.get("score")),
    )


def _text(record: Record, source: Source, column: str, number: int) -> str:
    value = record[column.casefold()]
    if isinstance(value, str | int | float):
        return str(value)
    if value is None:
        return ""
    raise DataError(f"{source.path}, row {number}: {column!r} is not text")


def _score(value: object) -> int | None:
    try:
        score = int(float(str(value)))
    except (ValueError, OverflowError):
        return None
    return score if abs(score) < 2**63 else None


def _replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


class Dataset(NamedTuple):
    """A data set on Kaggle, by owner and name, and the file to take from it."""

    slug: str
    file: str


DATASETS = (
    Dataset("jiriroz/qa-jokes", "jokes.csv"),
    Dataset("cuddlefish/reddit-rjokes", "jokes_score_name_clean.csv"),
)


def download(dataset: Dataset, out: Path) -> Path:
    """Download a data set's file into a folder and return its path.

    Raises:
        DataError: If the download fails; the message says how to get the file by hand.
        MissingDependencyError: If kagglehub is not installed.
    """
    kagglehub = import_optional("kagglehub", "downloading needs")
    target = out / dataset.file
    try:
        folder = Path(kagglehub.dataset_download(dataset.slug))
        file = next(folder.rglob(dataset.file), None)
        if file is None:
            raise FileNotFoundError(f"there is no {dataset.file} in it")
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    except Exception as error:  # whatever the error, the remedy is the same
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"the download of {dataset.slug} failed; download it manually: open "
            f"https://www.kaggle.com/datasets/{dataset.slug} in a browser, press Download, unpack "
            f"the archive and put {dataset.file} into {out} (the reason: {reason})"
        ) from error
    return target
