"""Tokens on disk: a corpus far larger than memory, read where it is needed.

    SOURCE-00000.npy, SOURCE-00001.npy, …   token ids of a source's documents, one behind the other
    tokens.json                             the manifest, written last

Each shard is a one-dimensional NumPy array of 16-bit ids (32-bit for vocabularies above
65,536) and is mapped into memory, so that only the pages read are ever loaded. Every
document begins with the end-of-text token, which so also ends the one before it. What
goes into the shards is `joker.training.corpus`'s work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joker.core.errors import DataError

FORMAT_VERSION = 1
MANIFEST = "tokens.json"
SHARD_TOKENS = 1 << 24
"""Most tokens in a shard: 32 MiB of 16-bit ids."""


class ShardWriter:
    """Writes one source's tokens, a shard at a time.

    Args:
        folder: Where the shards go.
        source: What the source is called.
        vocabulary_size: Decides how wide an id is.
        shard_tokens: Most tokens in a shard.
    """

    def __init__(
        self, folder: Path, source: str, vocabulary_size: int, shard_tokens: int = SHARD_TOKENS
    ) -> None:
        self._folder = folder
        self._source = source
        self._buffer = np.empty(
            shard_tokens, np.uint16 if vocabulary_size <= 1 << 16 else np.uint32
        )
        self._filled = 0
        self._shards = 0
        self.tokens = 0

    def add(self, ids: Sequence[int]) -> None:
        """Append tokens; a document may lie across two shards."""
        left = np.asarray(ids, dtype=self._buffer.dtype)
        self.tokens += len(left)
        while len(left):
            taken = left[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            left = left[len(taken) :]
            if self._filled == len(self._buffer):
                self.flush()

    def flush(self) -> None:
        """Write what has not been written yet as a shard."""
        if self._filled:
            path = self._folder / f"{self._source}-{self._shards:05d}.npy"
            np.save(path, self._buffer[: self._filled])
            self._shards += 1
            self._filled = 0


class TokenStream:
    """All tokens of one source, as one long sequence on disk.

    Args:
        folder: Where the shards lie.
        source: What the source is called.

    Raises:
        DataError: If a shard cannot be read or there is none.
    """

    def __init__(self, folder: Path, source: str) -> None:
        paths = sorted(folder.glob(f"{source}-[0-9][0-9][0-9][0-9][0-9].npy"))
        if not paths:
            raise DataError(f"{folder} holds no shards of {source}")
        try:
            self._shards = [np.load(path, mmap_mode="r") for path in paths]
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read the shards of {source} in {folder}: {error}") from error
        self._ends = np.cumsum([len(shard) for shard in self._shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, start: int, count: int) -> NDArray[np.int64]:
        """Return the tokens from ``start`` on; fewer than ``count`` at the end."""
        parts = [np.empty(0, np.int64)]
        index = int(np.searchsorted(self._ends, start, side="right"))
        while count > 0 and index < len(self._shards):
            shard = self._shards[index]
            offset = start - (int(self._ends[index]) - len(shard))
            parts.append(shard[offset : offset + count].astype(np.int64))
            start += len(parts[-1])
            count -= len(parts[-1])
            index += 1
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class TokenShards:
    """A folder of shards, opened.

    Attributes:
        path: The directory.
        tokens: Number of tokens of every source.
        facts: What went into them: settings, fingerprints, counts of what was left out.
    """

    path: Path
    tokens: dict[str, int]
    facts: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> TokenShards:
        """Read a folder's manifest.

        Raises:
            DataError: If the folder is not complete or of another format version.
        """
        source = path / MANIFEST
        try:
            fields = json.loads(source.read_text(encoding="utf-8"))
            if fields["format_version"] != FORMAT_VERSION:
                raise DataError(
                    f"{source} has format version {fields['format_version']!r}, this package "
                    f"reads {FORMAT_VERSION}; remove the folder and make it again"
                )
            return cls(path, dict(fields["tokens"]), dict(fields["facts"]))
        except OSError as error:
            raise DataError(f"{path} is not a complete folder of tokens: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{source} lacks or garbles {error}") from error

    def write_manifest(self) -> None:
        """Write ``tokens.json``, by which the folder counts as complete."""
        fields = {"format_version": FORMAT_VERSION, "tokens": self.tokens, "facts": self.facts}
        partial = self.path / f"{MANIFEST}.partial"
        partial.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", "utf-8")
        partial.replace(self.path / MANIFEST)

    def stream(self, source: str) -> TokenStream:
        """Return the tokens of one source."""
        return TokenStream(self.path, source)
