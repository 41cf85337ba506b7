"""The corpus: a folder of texts and one of jokes become a tokenizer and shards of tokens.

Three passes, none of which holds the corpus in memory: every document is parsed and
checked by several processes; a byte-level BPE tokenizer learns from a sample of what was
kept, unless one is given; what was kept becomes shards of tokens (`joker.data.shards`).

What is left out, and counted by reason:

- whatever holds a joke of the test split (`joker.data.decontamination`);
- posts that are no joke, by the rules of `joker.data.parsing`;
- with ``safe``, jokes that moderation flags as offensive, and passages of other
  texts that it flags so in a category of `GRAVE`;
- with ``distinct``, all but the first of jokes and posts that are near-copies of one
  another (`joker.data.near_copies`): what is read again and again is learnt by heart.

Posts that are jokes of question and answer are laid out as all jokes are, and go into
the source `JOKES` behind the prepared folder's own.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain, islice
from math import inf
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerFast

from joker.comedy.moderation import Category, Moderator
from joker.core.errors import ConfigError, DataError
from joker.core.joke import Joke
from joker.core.template import Template
from joker.core.tokenizer import JokeTokenizer
from joker.data.cleaning import clean, flatten
from joker.data.decontamination import HeldOutJokes
from joker.data.documents import Document, TextFile, text_files
from joker.data.parsing import parse_post
from joker.data.prepared import PreparedData
from joker.data.shards import ShardWriter, TokenShards
from joker.training.base import as_joke_tokenizer, train_tokenizer, with_special_tokens
from joker.training.kept import (
    Kept,
    KeptDocuments,
    Outcome,
    leave_near_copies_out,
    read_kept,
    remove_kept,
    sample_kept,
)

JOKES = "jokes"
"""The source of jokes laid out as question and answer."""

GRAVE: frozenset[Category] = frozenset({"explicit", "nsfw", "sexist", "racist"})
"""Categories in which no text may be offensive. Wars and death stay in what is not a joke."""

TOKENIZER = "tokenizer"
_PASSAGE_CHARACTERS = 1_500
_BATCH = 200
_PROCESSES = min(8, os.cpu_count() or 1)
_SAMPLE_CHARACTERS = 24_000_000
"""What the tokenizer learns from: enough for entries that each appear hundreds of times."""

Report = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CorpusConfig:
    """What goes into a corpus.

    Attributes:
        template: The jokes' layout.
        vocabulary_size: Entries of the tokenizer, special tokens left out.
        posts: Sources whose documents are posts: a title in the first line, then the body.
        left_out: Origins of documents that are not read.
        safe: Leave out what moderation flags as offensive.
        distinct: Leave out jokes and posts that are near-copies of one before them.
        characters: Most characters kept of each source; a source that is not named is not read.
            None keeps all of all. The prepared jokes are always kept whole.
    """

    template: Template
    vocabulary_size: int
    posts: frozenset[str]
    left_out: frozenset[str]
    safe: bool
    distinct: bool = False
    characters: dict[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as values that JSON keeps."""
        sets = {"posts": sorted(self.posts), "left_out": sorted(self.left_out)}
        return asdict(self) | {"template": self.template.to_dict()} | sets

    def limit(self, source: str) -> float:
        """Return how many characters of a source are kept at most."""
        return inf if self.characters is None else self.characters.get(source, 0)


def build_corpus(
    texts: Path,
    data: PreparedData,
    out: Path,
    config: CorpusConfig,
    report: Report,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> tuple[TokenShards, PreTrainedTokenizerFast]:
    """Make a tokenizer and shards of tokens.

    Args:
        texts: Folder of texts (`joker.data.documents`).
        data: Prepared jokes: the training split goes in, the test split is kept out.
        out: Folder to fill.
        config: What goes in.
        report: Gets a line now and then on how far it is.
        tokenizer: One that knows the layout; by default one is trained.

    Raises:
        DataError: If texts or jokes cannot be read.
        ConfigError: If the settings name a source that is not there.
    """
    out.mkdir(parents=True, exist_ok=True)
    counts: dict[str, Counter[str]] = {}
    with ExitStack() as files:
        kept = KeptDocuments(out, JOKES, files)
        train = [prepared.joke for prepared in data.jokes("train")]
        counts[JOKES] = kept.take(JOKES, _safe_jokes(train, config.safe), inf)
        by_source: defaultdict[str, list[TextFile]] = defaultdict(list)
        for file in text_files(texts):
            by_source[file.source].append(file)
        if unknown := sorted(set(config.characters or ()) - {JOKES, *by_source}):
            raise ConfigError(
                f"the mixture names {unknown[0]!r}, but the sources are "
                f"{', '.join([JOKES, *by_source])}"
            )
        with ProcessPoolExecutor(
            _PROCESSES, get_context("spawn"), _prepare_worker, (data.path, config)
        ) as pool:
            for source, found in by_source.items():
                if not config.limit(source):
                    continue
                documents = chain.from_iterable(file.documents() for file in found)
                outcomes = _in_order(pool, source, documents)
                counts[source] = kept.take(source, outcomes, config.limit(source))
                report(f"{source}: {_summary(counts[source])}")
    if config.distinct:
        left_out = leave_near_copies_out(out, [JOKES, *sorted(config.posts & set(counts))])
        for source, count in left_out.items():
            counts[source]["near-copies of others"] = count
            report(f"{source}: {count:,} near-copies of others left out")
    if tokenizer is None:
        sample = _SAMPLE_CHARACTERS // len(counts)
        tokenizer = with_special_tokens(
            train_tokenizer(
                chain.from_iterable(sample_kept(out, source, sample) for source in counts),
                config.vocabulary_size,
            ),
            config.template,
        )
    joke_tokenizer = as_joke_tokenizer(tokenizer, config.template)
    tokens = {}
    for source in counts:
        writer = ShardWriter(out, source, len(tokenizer))
        for batch in _batches(read_kept(out, source), 1_000):
            for ids in _encode(joke_tokenizer, batch):
                writer.add(ids)
        writer.flush()
        tokens[source] = writer.tokens
        report(f"{source}: {writer.tokens:,} tokens")
        remove_kept(out, source)
    tokenizer.save_pretrained(out / TOKENIZER)
    facts = {
        "data": data.manifest.fingerprint,
        "settings": config.to_dict(),
        "documents": {source: dict(count.most_common()) for source, count in counts.items()},
    }
    shards = TokenShards(out, {s: n for s, n in tokens.items() if n}, facts)
    shards.write_manifest()
    return shards, tokenizer


def open_corpus(
    path: Path,
    data: PreparedData,
    config: CorpusConfig,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> tuple[TokenShards, PreTrainedTokenizerFast]:
    """Return a corpus that was made before.

    Args:
        path: Its folder.
        data: The prepared jokes it must have been made with.
        config: What it must have been made with; it may hold more of each source.
        tokenizer: What it must have been encoded with; by default whatever it was.

    Raises:
        DataError: If the folder is not complete, or was made of something else.
    """
    shards = TokenShards.open(path)
    made_with = shards.facts["settings"]
    wanted = config.to_dict()
    uncompared = {"characters", "vocabulary_size"} if tokenizer else {"characters"}
    differing = [n for n in wanted if n not in uncompared and made_with.get(n) != wanted[n]]
    if shards.facts["data"] != data.manifest.fingerprint:
        differing.append("set of jokes")
    if not _holds_enough(made_with["characters"], config):
        differing.append("amount of text")
    if differing:
        raise _made_with_another(differing[0].replace("_", " "), path)
    made_by = PreTrainedTokenizerFast.from_pretrained(path / TOKENIZER)
    if tokenizer and tokenizer.get_vocab() != made_by.get_vocab():
        raise _made_with_another("tokenizer", path)
    return shards, made_by


def jokes_in(shards: TokenShards, tokenizer: JokeTokenizer) -> list[Joke]:
    """Return the jokes laid out as question and answer that a corpus holds."""
    stream = shards.stream(JOKES)
    tokens = np.append(stream.read(0, len(stream)), tokenizer.end_id)
    ends = np.flatnonzero(tokens == tokenizer.end_id)
    parsed = (tokenizer.parse(ids.tolist()) for ids in np.split(tokens, ends + 1))
    return [joke for joke in parsed if joke]


def _made_with_another(part: str, path: Path) -> DataError:
    return DataError(
        f"the tokens in {path} were made with another {part}; remove that folder or name another"
    )


def _holds_enough(made: dict[str, int] | None, config: CorpusConfig) -> bool:
    if made is None or config.characters is None:
        return made is None
    return all(
        made.get(source, 0) >= count
        for source, count in config.characters.items()
        if source != JOKES  # always whole
    )


def _safe_jokes(jokes: Sequence[Joke], safe: bool) -> Iterator[Outcome]:
    moderator = Moderator.default()
    for joke in jokes:
        flagged = safe and moderator.withholds(f"{joke.question}\n{joke.answer}")
        reasons = Counter({"flagged": 1} if flagged else {})
        yield Outcome([] if flagged else [Kept("joke", (joke.question, joke.answer))], reasons)


def _in_order(
    pool: ProcessPoolExecutor, source: str, documents: Iterator[Document]
) -> Iterator[Outcome]:
    """Check documents by many processes, a bounded number of batches ahead."""
    batches = _batches(documents, _BATCH)
    submitted = (pool.submit(_check_batch, source, batch) for batch in batches)
    pending = list(islice(submitted, 2 * _PROCESSES))
    while pending:
        yield pending.pop(0).result()
        pending += islice(submitted, 1)


class _Checks(NamedTuple):
    held_out: HeldOutJokes
    config: CorpusConfig


_checks: _Checks


def _prepare_worker(data: Path, config: CorpusConfig) -> None:
    global _checks
    test = [prepared.joke for prepared in PreparedData.open(data).jokes("test")]
    _checks = _Checks(HeldOutJokes(test), config)


def _check_batch(source: str, documents: Sequence[Document]) -> Outcome:
    kept: list[Kept] = []
    reasons: Counter[str] = Counter()
    for document in documents:
        if document.origin in _checks.config.left_out:
            reasons["origin left out"] += 1
        elif source in _checks.config.posts:
            _check_post(document.text, kept, reasons)
        else:
            _check_text(document.text, kept, reasons)
    return Outcome(kept, reasons)


def _check_post(text: str, kept: list[Kept], reasons: Counter[str]) -> None:
    title, _, body = text.strip().partition("\n")
    if not body:  # a joke in one line, which may ask and answer
        title, mark, body = title.partition("?")
        title += mark
    parsed = parse_post(title, body)
    whole = f"{parsed.question}\n{parsed.answer}".strip()
    if not body.strip():
        whole = flatten(clean(title).text)
        parsed = parsed._replace(fate="plain")
    if parsed.fate == "dropped":
        reasons[parsed.reason] += 1
    elif _checks.held_out.in_text(whole):
        reasons["holds a test joke"] += 1
    elif _checks.config.safe and Moderator.default().withholds(whole):
        reasons["flagged"] += 1
    elif parsed.fate == "joke":
        kept.append(Kept("joke", (parsed.question, parsed.answer)))
    else:
        kept.append(Kept("text", (whole,)))


def _check_text(text: str, kept: list[Kept], reasons: Counter[str]) -> None:
    """Keep a text's passages, those side by side as one document."""
    run: list[str] = []
    for passage in [*_passages(text), None]:
        reason = _fault(passage) if passage else ""
        if passage and not reason:
            run.append(passage)
            continue
        if run:
            kept.append(Kept("text", ("\n".join(run),)))
            run = []
        if reason:
            reasons[reason] += 1


def _fault(passage: str) -> str:
    if _checks.config.safe:
        flags = Moderator.default().check(passage)
        if any(flag.severity == "offensive" and flag.category in GRAVE for flag in flags):
            return "flagged passages"
    return "passages that hold a test joke" if _checks.held_out.in_text(passage) else ""


def _passages(text: str) -> Iterator[str]:
    """Cut a text at line ends into passages of bounded length; a longer line is one passage."""
    passage = ""
    for line in text.strip().splitlines():
        if passage and len(passage) + len(line) > _PASSAGE_CHARACTERS:
            yield passage
            passage = line
        else:
            passage = f"{passage}\n{line}" if passage else line
    if passage.strip():
        yield passage


def _encode(tokenizer: JokeTokenizer, batch: Sequence[tuple[str, ...]]) -> Iterator[list[int]]:
    """Yield each document's ids behind a start token.

    Where that is the end token too, a document's end is the next one's start.
    """
    end = [] if tokenizer.start_id == tokenizer.end_id else [tokenizer.end_id]
    texts = [content[0] for content in batch if len(content) == 1]
    encoded = iter(tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False))
    for content in batch:
        if len(content) == 1:
            yield [tokenizer.start_id, *next(encoded).ids, *end]
        else:
            yield tokenizer.encode(Joke(*content)).input_ids[:-1] + end


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    return iter(lambda: list(islice(items, size)), [])


def _summary(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in counts.most_common())
