"""What an engine is: prompts in, token ids out, many at once; and how likely answers are.

Every engine encodes prompts with the model's own `JokeTokenizer` and gives token ids
back, so one tokenizer serves training, evaluation and telling. `joker.engines.engine`
keeps this protocol, with any of the batches that advance requests together.

An engine knows nothing of failed jokes, further tries or checks: that is
`joker.generation`'s work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from joker.core.errors import InputError, ModelFolderError
from joker.core.model_folder import ModelFolder
from joker.core.sampling import Sampling
from joker.core.tokenizer import EncodedJoke, JokeTokenizer

_COLDEST = 1e-3


@dataclass(frozen=True, slots=True)
class Request:
    """One text to continue.

    Attributes:
        prompt: The start of a question; may be empty.
        sampling: How tokens are drawn.
        seed: Decides the draw, from 0 to 2**32 - 1: on one engine the same request gives the
            same tokens, whatever other requests are in the batch.
    """

    prompt: str
    sampling: Sampling
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """What became of one request.

    Attributes:
        token_ids: The prompt's ids and what was generated, the end token included when reached.
        finished: Whether the end token or a stop was reached, rather than a limit.
    """

    token_ids: list[int]
    finished: bool


Hear = Callable[[int, list[int]], None]
"""Is told a request's place and all token ids drawn for it so far, whenever there are more."""

Stopped = Callable[[], bool]
"""Says whether nobody waits for a result any more; asked every now and then."""


class AbandonedError(Exception):
    """Nobody waits for the result any more, so there is none."""


class Engine(Protocol):
    """A loaded model that continues prompts and knows how likely answers are.

    Attributes:
        tokenizer: Encodes prompts and jokes, and decodes the completions.
    """

    tokenizer: JokeTokenizer

    def generate(
        self,
        requests: Sequence[Request],
        *,
        hear: Hear | None = None,
        stopped: Stopped | None = None,
    ) -> list[Completion]:
        """Continue every request; return one completion for each, in order.

        Args:
            requests: What to continue.
            hear: Told of tokens as they are drawn.
            stopped: Ends the work early.

        Raises:
            AbandonedError: If ``stopped`` said so.
            InputError: If a prompt leaves no room in the model's context; nothing is generated.
            ResourceError: If the machine runs out of memory.
        """
        ...

    def score(self, jokes: Sequence[EncodedJoke]) -> list[float]:
        """Return for every joke log p(its answer and end | what stands before), in nats, in order.

        Temperature and the other rules of sampling play no part. A joke longer than the model's
        context, which it could never tell, has minus infinity.

        Raises:
            ResourceError: If the machine runs out of memory.
        """
        ...


def is_greedy(sampling: Sampling) -> bool:
    """Say whether the likeliest token is always taken, so that seeds change nothing.

    Temperatures that 32-bit floats cannot divide by count as 0.
    """
    return sampling.temperature < _COLDEST or sampling.top_k == 1


def load_tokenizer(folder: ModelFolder, path: Path) -> JokeTokenizer:
    """Read the tokenizer beside the weights or the graph in ``path``, and check that they match.

    Raises:
        TokenizerError: If it cannot be read.
        ModelFolderError: If it has tokens that the model does not know.
    """
    tokenizer = JokeTokenizer.from_folder(path, folder.manifest.template)
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"cannot read {path / 'config.json'}: {error}") from error
    known = config.get("vocab_size", tokenizer.vocabulary_size)
    if tokenizer.vocabulary_size > known:
        raise ModelFolderError(
            f"the tokenizer in {path} has {tokenizer.vocabulary_size} tokens but the model only "
            f"{known}; copy the files of one model there"
        )
    return tokenizer


def encode_request(
    request: Request, tokenizer: JokeTokenizer, context_length: int
) -> tuple[list[int], int]:
    """Return the ids to continue and how many tokens may follow them.

    Raises:
        InputError: If not one token may follow.
    """
    prompt_ids = tokenizer.encode_prompt(request.prompt)
    room = context_length - len(prompt_ids)
    if room < 1:
        raise InputError(
            f"the prompt is {len(prompt_ids)} tokens long and leaves no room for an answer in the "
            f"model's {context_length}; shorten it"
        )
    return prompt_ids, min(request.sampling.max_new_tokens, room)
