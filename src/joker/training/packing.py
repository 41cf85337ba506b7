"""Jokes as token ids in rows of equal length, for training.

`pack_jokes` puts several whole jokes into a row. Position ids start again at each joke, by
which Transformers recognizes a packed row and keeps attention inside each joke, so a joke's
loss is the same as in a row of its own. Not every architecture does so
(`joker.training.trainer.keeps_jokes_apart`); for the others `pad_jokes` gives each joke a
row of its own. `block_rows` does what the original does: it concatenates all jokes and cuts
every 128 tokens, so jokes are split and attend to one another.
"""

from __future__ import annotations

import bisect
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from joker.core.fingerprints import stock_phrases
from joker.core.similarity import normalize
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.evaluation.likelihood_metrics import cut_blocks
from joker.training.filtering import Selection

IGNORE_INDEX = -100
"""Label that PyTorch's cross entropy ignores."""
_WORD = re.compile(r"[^\W\d_]{3,}")
_TOPICS = 2
"""Number of a question's rarest words that can be its topic."""


@dataclass(frozen=True, slots=True)
class Rows(Dataset[dict[str, torch.Tensor]]):
    """Training rows.

    Attributes:
        tensors: By name, each of shape (rows, tokens): ``input_ids``, ``labels`` (`IGNORE_INDEX`
            where there is nothing to predict) and ``weights``, how much a label's loss counts. Rows
            of whole jokes also have ``answer_mask``, whether a label belongs to an answer (bool),
            and packed rows ``position_ids``, the position within the joke.
        used: Number of tokens that are not padding.
        too_long: Number of jokes left out because they are longer than a row.
    """

    tensors: dict[str, torch.Tensor]
    used: int
    too_long: int = 0

    def __len__(self) -> int:
        return len(self.tensors["input_ids"])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    @property
    def fill(self) -> float:
        """Share of the tokens that are not padding."""
        return self.used / max(1, self.tensors["input_ids"].numel())


def encode_selection(
    tokenizer: JokeTokenizer, selection: Selection, seed: int, *, verdicts: bool = False
) -> list[EncodedJoke]:
    """Encode the jokes, some of them punchline first as well.

    With a punchline-first template, the jokes that readers liked and those with a stock phrase as
    their answer are also encoded punchline first: a third of these after a hint that is the start
    of the question, and a third after a topic, as in prompts.

    Args:
        tokenizer: Encodes; its template decides whether there are punchline-first jokes.
        selection: The jokes.
        seed: Seed of the hints.
        verdicts: Add the rated jokes, each with its verdict, for the critic.
    """
    encoded = [tokenizer.encode(joke) for joke in selection.jokes]
    if tokenizer.template.punchline_first:
        stock = stock_phrases(selection.jokes)
        liked = {joke for joke, works in selection.rated if works}
        chosen = [
            joke for joke in selection.jokes if joke in liked or normalize(joke.answer) in stock
        ]
        hints = _hints([joke.question for joke in chosen], random.Random(seed))
        encoded += map(tokenizer.encode_punchline_first, chosen, hints)
    if verdicts:
        encoded += [tokenizer.encode_verdict(joke, works) for joke, works in selection.rated]
    return encoded


def pack_jokes(
    jokes: Sequence[EncodedJoke], block_size: int, pad_id: int, multiple: int = 1
) -> Rows:
    """Fill rows with whole jokes, best fit decreasing.

    Args:
        jokes: Encoded jokes; those longer than a row are left out and counted.
        block_size: Tokens per row.
        pad_id: Padding token; never predicted, never attended to.
        multiple: The number of rows is padded to a multiple of this, so that all batches have the
            same shape and a compiled model is compiled once.
    """
    fitting = [joke for joke in jokes if len(joke) <= block_size]
    bins = _best_fit([len(joke) for joke in fitting], block_size)
    rows = [[fitting[member] for member in members] for members in bins]
    return _make_rows(rows, block_size, pad_id, multiple, len(jokes) - len(fitting), packed=True)


def pad_jokes(
    jokes: Sequence[EncodedJoke], block_size: int, pad_id: int, multiple: int = 1
) -> Rows:
    """Give each joke a row of its own, as long as the longest joke that fits.

    Arguments are those of `pack_jokes`. Padding is on the right, which causal attention ignores.
    """
    fitting = [joke for joke in jokes if len(joke) <= block_size]
    width = max(map(len, fitting), default=block_size)
    rows = [[joke] for joke in fitting]
    return _make_rows(rows, width, pad_id, multiple, len(jokes) - len(fitting), packed=False)


def block_rows(jokes: Sequence[EncodedJoke], block_size: int) -> Rows:
    """Concatenate all jokes and cut the result into blocks, as the original does."""
    input_ids = _cut(jokes, block_size, torch.long, lambda joke: joke.input_ids)
    learned = _cut(jokes, block_size, torch.bool, _is_learned)
    tensors = {
        "input_ids": input_ids,
        "labels": input_ids.masked_fill(~learned, IGNORE_INDEX),
        "weights": _cut(jokes, block_size, torch.float, lambda joke: [joke.weight] * len(joke)),
    }
    return Rows(tensors, used=input_ids.numel())


def _hints(questions: list[str], generator: random.Random) -> Iterable[str]:
    """Yield no hint, the start, or a topic of each question, a third each."""
    counts = Counter(word.lower() for question in questions for word in _WORD.findall(question))
    for question in questions:
        kind = generator.randrange(3)
        words = question.split()
        if kind == 1 and len(words) > 1:
            yield " ".join(words[: generator.randrange(1, len(words))])
        elif kind == 2 and (topics := _WORD.findall(question.lower())):
            yield generator.choice(sorted(topics, key=counts.__getitem__)[:_TOPICS])
        else:
            yield ""


def _make_rows(
    rows: list[list[EncodedJoke]],
    width: int,
    pad_id: int,
    multiple: int,
    too_long: int,
    *,
    packed: bool,
) -> Rows:
    """Return rows of whole jokes, with ``position_ids`` if they are packed."""
    used = sum(len(joke) for row in rows for joke in row)
    shape = (len(rows) + -len(rows) % multiple, width)
    tensors = {
        "input_ids": torch.full(shape, pad_id),
        "labels": torch.full(shape, IGNORE_INDEX),
        "answer_mask": torch.zeros(shape, dtype=torch.bool),
        "weights": torch.ones(shape),
    }
    if packed:
        tensors["position_ids"] = torch.zeros(shape, dtype=torch.long)
    for row, jokes in enumerate(rows):
        start = 0
        for joke in jokes:
            end = start + len(joke)
            ids = torch.tensor(joke.input_ids)
            tensors["input_ids"][row, start:end] = ids
            tensors["labels"][row, start + joke.learned_from : end] = ids[joke.learned_from :]
            tensors["answer_mask"][row, start + joke.answer_start : end] = joke.learned_from == 1
            tensors["weights"][row, start:end] = joke.weight
            if packed:
                tensors["position_ids"][row, start:end] = torch.arange(len(joke))
            start = end
    return Rows(tensors, used, too_long)


def _cut(
    jokes: Sequence[EncodedJoke],
    block_size: int,
    dtype: torch.dtype,
    values: Callable[[EncodedJoke], Sequence[float]],
) -> torch.Tensor:
    """Cut one value per token into blocks."""
    blocks = cut_blocks(map(values, jokes), block_size)
    return torch.tensor(blocks, dtype=dtype).view(len(blocks), block_size)


def _is_learned(joke: EncodedJoke) -> list[bool]:
    return [index >= joke.learned_from for index in range(len(joke))]


def _best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Distribute items over bins of a capacity, best fit decreasing; returns indices per bin."""
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (free capacity, bin), sorted
    for item in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        position = bisect.bisect_left(free, (lengths[item], -1))
        if position == len(free):
            room, chosen = capacity, len(bins)
            bins.append([])
        else:
            room, chosen = free.pop(position)
        bins[chosen].append(item)
        bisect.insort(free, (room - lengths[item], chosen))
    return bins
