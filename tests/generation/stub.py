"""An engine whose words are a function of the task, and functions for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from joker.core.joke import Sampling
from joker.core.template import TEMPLATES, Template
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.engines import Completion, GenerationListener, GenerationTask
from joker.engines.protocol import AbandonedError
from joker.generation.request import GenerationRequest

END = "<|endoftext|>"
MARKER = "\n<|answer|> "


class StubEngine:
    """An engine that continues each prompt with what a function of it says.

    A text without an end stands for one that was cut off. An answer fits its question the better
    the more exclamation marks it has.
    """

    def __init__(
        self, script: Callable[[GenerationTask], str], template: Template = TEMPLATES["original"]
    ) -> None:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        self.backend = Tokenizer(models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
        self.backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.backend.decoder = decoders.ByteLevel()
        self.backend.add_special_tokens([END, *template.special_tokens])
        self.tokenizer = JokeTokenizer(self.backend, template, END)
        self.script = script
        self.batches: list[list[GenerationTask]] = []
        self.scored: list[EncodedJoke] = []

    def generate(
        self, tasks: Sequence[GenerationTask], listener: GenerationListener | None = None
    ) -> list[Completion]:
        if listener and listener.should_stop():
            raise AbandonedError
        self.batches.append(list(tasks))
        drawn = [self.backend.encode(self.script(task)).ids for task in tasks]
        for place, (task, ids) in enumerate(zip(tasks, drawn, strict=True)):
            for end in range(1, len(ids) + 1):
                if listener and task.streamed:
                    listener.on_tokens(place, ids[:end])
        return [self._complete(*pair) for pair in zip(tasks, drawn, strict=True)]

    def score(self, jokes: Sequence[EncodedJoke]) -> list[list[float]]:
        self.scored += jokes
        texts = [self.tokenizer.decode(joke.input_ids) for joke in jokes]
        return [[float(text.count("!")) if "<|question|>" in text else 0.0] for text in texts]

    def _complete(self, task: GenerationTask, drawn: list[int]) -> Completion:
        ids = [*task.prompt_ids, *drawn]
        return Completion(ids, finished=ids[-1] == self.tokenizer.end_id)

    def close(self) -> None:
        """Have nothing to release."""


def ask(
    prompt: str = "",
    count: int = 1,
    sampling: Sampling | None = None,
    *,
    candidates: int = 1,
    **fields: Any,
) -> GenerationRequest:
    """Return a request with one candidate for each joke."""
    return GenerationRequest(prompt, count, sampling or Sampling(), candidates=candidates, **fields)


def good(task: GenerationTask) -> str:
    return f" number {task.seed}{MARKER}Fine.{END}"


def excited(task: GenerationTask) -> str:
    return f" number {task.seed}{MARKER}Fine{'!' * (1 + task.seed % 50)}{END}"
