"""The Transformers engine: the PyTorch weights themselves, on a GPU where there is one.

Transformers' own ``generate`` draws all rows of a batch from one generator and by one
set of sampling parameters, so a joke would depend on its neighbours. Hence the loop
here: every row has a generator of its own, and rows that are done leave the batch.

Prompts are padded on the left. In 32-bit floats that and the size of the batch change
logits only in their last digits, so a request gives the same tokens alone and among
others unless a draw falls within about a millionth of the border between two tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from joker.core.model_folder import ModelFolder
from joker.core.sampling import Sampling
from joker.core.tokenizer import EncodedJoke
from joker.engines.base import Completion, Request, encode_request, load_tokenizer
from joker.engines.likelihood import token_log_probabilities
from joker.engines.sampler import draw
from joker.engines.weights import load_causal_lm, out_of_memory_as_resource_error

_ROWS_AT_ONCE = 64
"""More rows cost memory for their keys and values and are hardly faster."""


@dataclass(slots=True)
class _Row:
    """One request on its way: the ids so far and how many it may have at most."""

    ids: list[int]
    length_limit: int
    sampling: Sampling
    generator: torch.Generator


class TransformersEngine:
    """Continues prompts and scores answers with a model folder's PyTorch weights.

    Args:
        folder: The model.
        device: Where it runs, such as ``cpu`` or ``cuda``; by default a GPU if there is one.

    Raises:
        ModelFolderError: If the folder has no weights or damaged ones.
        TokenizerError: If its tokenizer cannot be read.
        MissingPartError: If Transformers is not installed.
    """

    def __init__(self, folder: ModelFolder, device: str | None = None) -> None:
        self.tokenizer = load_tokenizer(folder, folder.path)
        self._context_length = folder.manifest.context_length
        self._model: Any = load_causal_lm(folder, device)
        # Models with relative positions take no position_ids.
        self._takes_positions = "position_ids" in signature(self._model.forward).parameters

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Continue every request, so many at a time; see `Engine.generate`."""
        rows = [self._row(request) for request in requests]
        with out_of_memory_as_resource_error("generating"), torch.inference_mode():
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                self._continue(rows[start : start + _ROWS_AT_ONCE])
        return [Completion(row.ids, finished=self._has_ended(row)) for row in rows]

    def score(self, jokes: Sequence[EncodedJoke]) -> list[float]:
        """Return how likely every answer is; see `Engine.score`."""
        scores = [-math.inf] * len(jokes)
        kept = [i for i, joke in enumerate(jokes) if len(joke) <= self._context_length]
        found = token_log_probabilities(self._model, [jokes[i].input_ids for i in kept])
        for index, each in zip(kept, found, strict=True):
            scores[index] = float(each[jokes[index].answer_start - 1 :].sum())
        return scores

    def _row(self, request: Request) -> _Row:
        ids, max_new_tokens = encode_request(request, self.tokenizer, self._context_length)
        generator = torch.Generator().manual_seed(request.seed)
        return _Row(ids, len(ids) + max_new_tokens, request.sampling, generator)

    def _continue(self, rows: list[_Row]) -> None:
        """Append tokens to every row until it ends or reaches its limit."""
        fed, mask = self._pad([row.ids for row in rows])
        cache = None
        while rows:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -fed.shape[-1] :]
            output = self._model(
                input_ids=fed,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **({"position_ids": positions} if self._takes_positions else {}),
            )
            cache = output.past_key_values
            uniforms = [torch.rand((), generator=row.generator).item() for row in rows]
            fed = draw(output.logits[:, -1], [row.sampling for row in rows], uniforms).unsqueeze(-1)
            for row, (token,) in zip(rows, fed.tolist(), strict=True):
                row.ids.append(token)
            going = [i for i, row in enumerate(rows) if not self._is_done(row)]
            if len(going) < len(rows):
                rows = [rows[i] for i in going]
                kept = torch.tensor(going, dtype=torch.long, device=fed.device)
                fed, mask = fed[kept], mask[kept]
                cache.batch_select_indices(kept)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=-1)

    def _pad(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids padded on the left and the mask that hides the padding, (rows, width) both."""
        width = max(map(len, prompts))
        ids = [[self.tokenizer.end_id] * (width - len(prompt)) + [*prompt] for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _has_ended(self, row: _Row) -> bool:
        return row.ids[-1] == self.tokenizer.end_id

    def _is_done(self, row: _Row) -> bool:
        return self._has_ended(row) or len(row.ids) == row.length_limit
