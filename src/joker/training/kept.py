"""What is kept of texts and jokes: on disk between the passes that make a corpus.

A line of ``SOURCE.kept.jsonl`` for each document: a text alone, or a joke's question and
answer. `joker.training.corpus` decides what is kept and turns it into tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, compress, islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from joker.core.joke import Joke
from joker.data.near_copies import find_near_copies


class Kept(NamedTuple):
    """A document that is kept.

    Attributes:
        kind: A joke of question and answer, or a text.
        content: Question and answer, or the text alone.
    """

    kind: Literal["joke", "text"]
    content: tuple[str, ...]


class Outcome(NamedTuple):
    """What became of some documents.

    Attributes:
        kept: Those that are kept.
        reasons: How many were not, by reason.
    """

    kept: list[Kept]
    reasons: Counter[str]


class KeptDocuments:
    """Writes what is kept of every source.

    Args:
        folder: Where the files lie.
        jokes: The source that jokes go into, whatever source they come from.
        files: Closes the files.
    """

    def __init__(self, folder: Path, jokes: str, files: ExitStack) -> None:
        self._folder = folder
        self._joke_source = jokes
        self._files = files
        self._jokes = files.enter_context(_path(folder, jokes).open("w", encoding="utf-8"))

    def take(self, source: str, outcomes: Iterable[Outcome], characters: float) -> Counter[str]:
        """Write what was kept until it is enough; return what became of the documents."""
        counts: Counter[str] = Counter()
        own = self._jokes
        if source != self._joke_source:
            path = _path(self._folder, source)
            own = self._files.enter_context(path.open("w", encoding="utf-8"))
        written = 0
        for outcome in outcomes:
            counts.update(outcome.reasons)
            for kept in outcome.kept:
                counts[f"kept as {kept.kind}"] += 1
                file = self._jokes if kept.kind == "joke" else own
                file.write(_line(kept.content))
                written += sum(map(len, kept.content))
            if written >= characters:
                break
        return counts


def leave_near_copies_out(folder: Path, sources: Sequence[str]) -> dict[str, int]:
    """Keep the first of all near-copies in several sources; return how many each lost."""
    kept = {source: list(read_kept(folder, source)) for source in sources}
    # A text without an answer stands for both, which changes no set of 5-grams but at the seam.
    jokes = [Joke(content[0], content[-1]) for content in chain.from_iterable(kept.values())]
    is_first = np.zeros(len(jokes), np.bool_)
    is_first[np.unique(find_near_copies(jokes).clusters, return_index=True)[1]] = True
    marks = iter(is_first.tolist())
    left_out = {}
    for source, contents in kept.items():
        distinct = list(compress(contents, islice(marks, len(contents))))
        with _path(folder, source).open("w", encoding="utf-8") as lines:
            lines.writelines(map(_line, distinct))
        left_out[source] = len(contents) - len(distinct)
    return left_out


def read_kept(folder: Path, source: str) -> Iterator[tuple[str, ...]]:
    """Yield the content of every document kept of a source."""
    with _path(folder, source).open(encoding="utf-8") as lines:
        for line in lines:
            yield tuple(json.loads(line))


def sample_kept(folder: Path, source: str, characters: int) -> Iterator[str]:
    """Yield the first texts kept of a source, about so many characters of them."""
    for content in read_kept(folder, source):
        text = " ".join(content)
        characters -= len(text)
        yield text
        if characters < 0:
            return


def remove_kept(folder: Path, source: str) -> None:
    """Remove what was kept of a source."""
    _path(folder, source).unlink()


def _path(folder: Path, source: str) -> Path:
    return folder / f"{source}.kept.jsonl"


def _line(content: tuple[str, ...]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"
