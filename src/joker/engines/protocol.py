"""The protocol of engines: prompts in, token ids out, many at once; and likelihoods of answers.

Prompts are encoded with the engine's own `JokeTokenizer` and come back as token ids, so one
tokenizer serves training, evaluation and generation. `joker.engines.engine` implements it.

Engines do not judge, retry or moderate jokes; `joker.generation` does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from joker.core.errors import ModelFolderError, PromptError
from joker.core.joke import GeneratedJoke, Sampling
from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.engines.tasks import GenerationTask

_MIN_TEMPERATURE = 1e-3


@dataclass(frozen=True, slots=True)
class Completion:
    """The result of one task.

    Attributes:
        token_ids: The prompt's ids and the generated ones, with the end token if it was reached.
        finished: Whether the end token or a stop text was reached, rather than a limit.
    """

    token_ids: list[int]
    finished: bool


class GenerationListener:
    """Follows the generation of jokes, and may stop it.

    Engines, the teller, queues and workers all report to one. Subclasses override what they need;
    this class ignores everything and stops nothing. Calls come from the generating thread.
    """

    def on_tokens(self, index: int, token_ids: list[int]) -> bool:  # noqa: ARG002
        """Get all tokens generated so far for a task; return whether to end the task.

        Engines call it for streamed tasks, with the task's index in the call.
        """
        return False

    def wants_drafts(self) -> bool:
        """Return whether drafts are wanted now; called repeatedly."""
        return True

    def on_draft(self, index: int, question: str, answer: str) -> None:
        """Get the text of a joke so far; another attempt starts from the beginning."""

    def on_joke(self, index: int, joke: GeneratedJoke) -> None:
        """Get a joke as soon as it is final."""

    def should_stop(self) -> bool:
        """Return whether the result is no longer wanted; called repeatedly."""
        return False


class AbandonedError(Exception):
    """The listener asked to stop, so there is no result."""


class Engine(Protocol):
    """A loaded model that completes prompts and scores answers.

    Attributes:
        tokenizer: Encodes prompts and jokes, and decodes the completions.
    """

    tokenizer: JokeTokenizer

    def generate(
        self, tasks: Sequence[GenerationTask], listener: GenerationListener | None = None
    ) -> list[Completion]:
        """Return the completion of every prompt, in order.

        Args:
            tasks: The prompts, encoded by `JokeTokenizer.encode_prompt`. If the model's context has
                less room than the sampling allows, fewer tokens are generated.
            listener: Gets the tokens of streamed tasks; may end one or all tasks early.

        Raises:
            AbandonedError: If the listener asked to stop.
            InputError: If a prompt leaves no room in the model's context; nothing is generated.
            ResourceError: If the machine runs out of memory.
        """
        ...

    def score(self, jokes: Sequence[EncodedJoke]) -> list[list[float]]:
        """Return the log-probabilities of every joke's tokens from its answer's first, in nats.

        Those of a joke longer than the model's context are minus infinity. A remote server may
        split the answer into other tokens.

        Raises:
            ResourceError: If the machine runs out of memory.
        """
        ...

    def close(self) -> None:
        """Release the model; no further calls are possible."""
        ...


def is_greedy(sampling: Sampling) -> bool:
    """Return whether sampling always takes the likeliest token, so that seeds do not matter.

    Temperatures too small to divide by in 32-bit floats count as 0.
    """
    return sampling.temperature < _MIN_TEMPERATURE or sampling.top_k == 1


def load_tokenizer(folder: ModelFolder, path: Path) -> JokeTokenizer:
    """Read the tokenizer next to the weights or the graph in ``path``, and check that they match.

    Raises:
        TokenizerError: If it cannot be read.
        ModelFolderError: If it has tokens that the model does not know.
    """
    tokenizer = JokeTokenizer.from_folder(path, folder.manifest.template)
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"cannot read {path / 'config.json'}: {error}") from error
    model_size = config.get("vocab_size", tokenizer.vocabulary_size)
    if tokenizer.vocabulary_size > model_size:
        raise ModelFolderError(
            f"the tokenizer in {path} has {tokenizer.vocabulary_size} tokens but the model only "
            f"{model_size}; copy the files of one model there"
        )
    return tokenizer


def fit_context(task: GenerationTask, context_length: int) -> GenerationTask:
    """Return a task with no more new tokens than the model's context has room for.

    Raises:
        PromptError: If there is no room for a single new token.
    """
    room = context_length - len(task.prompt_ids)
    if room < 1:
        raise PromptError(
            f"the prompt is {len(task.prompt_ids)} tokens long and leaves no room for an answer in "
            f"the model's context of {context_length}; shorten it"
        )
    max_new_tokens = min(task.sampling.max_new_tokens, room)
    return replace(task, sampling=replace(task.sampling, max_new_tokens=max_new_tokens))
