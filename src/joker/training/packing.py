"""Jokes as token ids in rows of equal length, as training reads them.

`pack_jokes` puts whole jokes side by side in a row. Positions start again at each joke,
by which Transformers recognizes a packed row and keeps attention inside each joke, so a
joke's loss is the same as if it stood alone. Not every architecture does so
(`joker.training.trainer.keeps_jokes_apart`); for the others `pad_jokes` gives each joke a
row of its own. `block_rows` is the original's way: all jokes in one text, cut every 128
tokens, jokes torn apart and seeing one another.
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
from joker.core.similarity import normalise
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.evaluation.likelihood_metrics import cut_blocks
from joker.training.filtering import Selection

IGNORED = -100
"""Label that PyTorch's cross entropy leaves out."""
_WORD = re.compile(r"[^\W\d_]{3,}")
_TOPICS = 2
"""How many of a question's rarest words can be its topic."""


@dataclass(frozen=True, slots=True)
class Rows(Dataset[dict[str, torch.Tensor]]):
    """Training rows.

    Attributes:
        tensors: By name, each of shape (rows, tokens): ``input_ids`` and ``labels``
            (`IGNORED` where there is nothing to predict) and ``weights``, how much a label's loss
            counts. Rows of whole jokes also have ``answer_mask``, whether a label belongs to an
            answer (bool), and packed rows ``position_ids``, the position within the joke.
        used: Places that hold a token of a joke, start tokens included.
        too_long: Jokes left out because they exceed a row.
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
        """Share of the rows' places that hold a joke's token, start tokens included."""
        return self.used / max(1, self.tensors["input_ids"].numel())


def encode_selection(
    tokenizer: JokeTokenizer, selection: Selection, seed: int
) -> list[EncodedJoke]:
    """Return every joke, in both orders where the template knows both, and verdicts.

    Only jokes that readers liked and those that share their punchline with others are read from
    the punchline on. Of these a third begins with the start of the question and a third with a
    topic, as prompts do.

    Args:
        tokenizer: Its template decides whether there is a second order.
        selection: The jokes.
        seed: Decides which jokes get which hint.
    """
    encoded = [tokenizer.encode(joke) for joke in selection.jokes]
    if tokenizer.template.punchline_first:
        stock = stock_phrases(selection.jokes)
        liked = {joke for joke, works in selection.rated if works}
        chosen = [
            joke for joke in selection.jokes if joke in liked or normalise(joke.answer) in stock
        ]
        hints = _hints([joke.question for joke in chosen], random.Random(seed))
        encoded += map(tokenizer.encode_punchline_first, chosen, hints)
    return encoded + [tokenizer.encode_verdict(joke, works) for joke, works in selection.rated]


def pack_jokes(
    jokes: Sequence[EncodedJoke], block_size: int, pad_id: int, multiple: int = 1
) -> Rows:
    """Fill rows with whole jokes, best fit first, longest jokes first.

    Args:
        jokes: Encoded jokes; ones longer than a row are left out and counted.
        block_size: Tokens per row.
        pad_id: Token for the places left over; never predicted, never attended to.
        multiple: Rows without jokes are added until the number of rows is a multiple of
            this, so that every batch has one shape and a compiled model is compiled once.
    """
    fitting = [joke for joke in jokes if len(joke) <= block_size]
    bins = _best_fit([len(joke) for joke in fitting], block_size)
    rows = [[fitting[member] for member in members] for members in bins]
    return _fill(rows, block_size, pad_id, multiple, len(jokes) - len(fitting), packed=True)


def pad_jokes(
    jokes: Sequence[EncodedJoke], block_size: int, pad_id: int, multiple: int = 1
) -> Rows:
    """Give each joke a row of its own, as long as the longest joke that fits.

    Arguments are those of `pack_jokes`. Padding follows the joke, where a causal model
    cannot see it.
    """
    fitting = [joke for joke in jokes if len(joke) <= block_size]
    width = max(map(len, fitting), default=block_size)
    rows = [[joke] for joke in fitting]
    return _fill(rows, width, pad_id, multiple, len(jokes) - len(fitting), packed=False)


def block_rows(jokes: Sequence[EncodedJoke], block_size: int) -> Rows:
    """Join all jokes into one text and cut it into blocks, the original's way."""
    input_ids = _cut(jokes, block_size, torch.long, lambda joke: joke.input_ids)
    learned = _cut(jokes, block_size, torch.bool, _is_learned)
    tensors = {
        "input_ids": input_ids,
        "labels": input_ids.masked_fill(~learned, IGNORED),
        "weights": _cut(jokes, block_size, torch.float, lambda joke: [joke.weight] * len(joke)),
    }
    return Rows(tensors, used=input_ids.numel())


def _hints(questions: list[str], generator: random.Random) -> Iterable[str]:
    """Return nothing, a start or a topic for each question."""
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


def _fill(
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
        "labels": torch.full(shape, IGNORED),
        "answer_mask": torch.zeros(shape, dtype=torch.bool),
        "weights": torch.ones(shape),
    }
    if packed:
        tensors["position_ids"] = torch.zeros(shape, dtype=torch.long)
    for place, jokes in enumerate(rows):
        start = 0
        for joke in jokes:
            end = start + len(joke)
            ids = torch.tensor(joke.input_ids)
            tensors["input_ids"][place, start:end] = ids
            tensors["labels"][place, start + joke.learned_from : end] = ids[joke.learned_from :]
            tensors["answer_mask"][place, start + joke.answer_start : end] = joke.learned_from == 1
            tensors["weights"][place, start:end] = joke.weight
            if packed:
                tensors["position_ids"][place, start:end] = torch.arange(len(joke))
            start = end
    return Rows(tensors, used, too_long)


def _cut(
    jokes: Sequence[EncodedJoke],
    block_size: int,
    dtype: torch.dtype,
    values: Callable[[EncodedJoke], Sequence[float]],
) -> torch.Tensor:
    """Cut one value per token into blocks."""
    cut = cut_blocks(map(values, jokes), block_size)
    return torch.tensor(cut, dtype=dtype).view(len(cut), block_size)


def _is_learned(joke: EncodedJoke) -> list[bool]:
    return [index >= joke.learned_from for index in range(len(joke))]


def _best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Distribute items over bins of a capacity, best fit decreasing; returns indices per bin."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (room left, bin), sorted
    for item in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        place = bisect.bisect_left(room, (lengths[item], -1))
        if place == len(room):
            bins.append([item])
            left = (capacity - lengths[item], len(bins) - 1)
        else:
            free, chosen = room.pop(place)
            bins[chosen].append(item)
            left = (free - lengths[item], chosen)
        bisect.insort(room, left)
    return bins
