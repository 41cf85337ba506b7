"""An engine whose words are a function of the request, and functions for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from joker.core.template import TEMPLATES
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.engines import Completion, Request
from joker.engines.protocol import AbandonedError, Hear, Stopped

END = "<|endoftext|>"
MARKER = "\n<|answer|> "


class StubEngine:
    """An engine that continues each request with what a function of it says.

    A text without an end stands for one that was cut off. An answer fits its question the better
    the more exclamation marks it has.
    """

    def __init__(self, script: Callable[[Request], str]) -> None:
        template = TEMPLATES["original"]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        self.backend = Tokenizer(models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
        self.backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.backend.decoder = decoders.ByteLevel()
        self.backend.add_special_tokens([END, *template.special_tokens])
        self.tokenizer = JokeTokenizer(self.backend, template, END)
        self.script = script
        self.batches: list[list[Request]] = []
        self.scored: list[EncodedJoke] = []

    def generate(
        self,
        requests: Sequence[Request],
        *,
        hear: Hear | None = None,
        stopped: Stopped | None = None,
    ) -> list[Completion]:
        if stopped and stopped():
            raise AbandonedError
        self.batches.append(list(requests))
        drawn = [self.backend.encode(self.script(request)).ids for request in requests]
        if hear:
            for place, ids in enumerate(drawn):
                for end in range(1, len(ids) + 1):
                    hear(place, ids[:end])
        return [self._complete(*pair) for pair in zip(requests, drawn, strict=True)]

    def score(self, jokes: Sequence[EncodedJoke]) -> list[float]:
        self.scored += jokes
        texts = [self.tokenizer.decode(joke.input_ids) for joke in jokes]
        return [float(text.count("!")) if "<|question|>" in text else 0.0 for text in texts]

    def _complete(self, request: Request, drawn: list[int]) -> Completion:
        ids = [*self.tokenizer.encode_prompt(request.prompt), *drawn]
        return Completion(ids, finished=ids[-1] == self.tokenizer.end_id)


def good(request: Request) -> str:
    return f" number {request.seed}{MARKER}Fine.{END}"


def excited(request: Request) -> str:
    return f" number {request.seed}{MARKER}Fine{'!' * (1 + request.seed % 50)}{END}"
