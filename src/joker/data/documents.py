"""A folder of plain text, read document by document: what a model learns language from.

JSON lines (``text`` in every line) and plain text files, compressed with xz or gzip or
not. Files are read as streams, so a folder may be far larger than memory. A file's
*source* is its name up to a number at its end: ``books-00.jsonl.xz`` and
``books-01.jsonl.xz`` are both ``books``.
"""

from __future__ import annotations

import gzip
import json
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from joker.core.errors import DataError

_SUFFIXES = re.compile(r"\.(jsonl|txt)(\.xz|\.gz)?$")
_NUMBER = re.compile(r"[-_.]?\d+$")


class Document(NamedTuple):
    """One text.

    Attributes:
        text: What it says.
        origin: Where it is from, where its file says so in ``source``; else empty.
    """

    text: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class TextFile:
    """One file of a text folder.

    Attributes:
        path: Where it lies.
        source: What its documents are called together.
    """

    path: Path
    source: str

    def documents(self) -> Iterator[Document]:
        """Yield its documents in order; a plain text file is one document a paragraph.

        Raises:
            DataError: If the file is damaged or a line has no text.
        """
        try:
            with self._open() as lines:
                if self._is_json:
                    yield from self._json_lines(lines)
                else:
                    yield from map(Document, _paragraphs(lines))
        except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {self.path}: {error}") from error

    @property
    def _is_json(self) -> bool:
        return ".jsonl" in self.path.suffixes

    def _open(self) -> IO[str]:
        if self.path.suffix == ".xz":
            return lzma.open(self.path, "rt", encoding="utf-8")
        if self.path.suffix == ".gz":
            return gzip.open(self.path, "rt", encoding="utf-8")
        return self.path.open(encoding="utf-8")

    def _json_lines(self, lines: IO[str]) -> Iterator[Document]:
        for number, line in enumerate(lines, 1):
            try:
                fields = json.loads(line)
                text, origin = fields["text"], str(fields.get("source", ""))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{self.path}, line {number}: expected a JSON object with 'text'"
                ) from error
            if not isinstance(text, str):
                raise DataError(f"{self.path}, line {number}: 'text' is no text")
            yield Document(text, origin)


def text_files(folder: Path) -> list[TextFile]:
    """Return the text files of a folder in the order of their names.

    Raises:
        DataError: If there is no such folder or it holds none.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder of texts at {folder}")
    files = [
        TextFile(path, _NUMBER.sub("", found_name) or found_name)
        for path in sorted(folder.iterdir())
        if (found := _SUFFIXES.search(path.name)) and (found_name := path.name[: found.start()])
    ]
    if not files:
        raise DataError(f"{folder} holds no .jsonl or .txt file (or one ending in .xz or .gz)")
    return files


def _paragraphs(lines: IO[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in lines:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "".join(paragraph).strip()
            paragraph = []
    if paragraph:
        yield "".join(paragraph).strip()
