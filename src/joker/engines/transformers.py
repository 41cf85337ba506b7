"""The Transformers batch: the PyTorch weights themselves, on a GPU where there is one.

Transformers' own ``generate`` draws all rows of a batch from one generator and by one
set of sampling parameters, so a joke would depend on its neighbours, and nothing can join
it under way. Hence the steps here: every row has a generator of its own, rows that are done
leave, and new ones join with their keys and values beside the others'.

Prompts are padded on the left. In 32-bit floats that and the size of the batch change
logits only in their last digits, so a request gives the same tokens alone and among
others unless a draw falls within about a millionth of the border between two tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from joker.engines.likelihood import token_log_probabilities
from joker.engines.sampler import draw
from joker.engines.tasks import Generation, Key, Output, Scoring, Task
from joker.engines.weights import out_of_memory_as_resource_error

_ROWS_AT_ONCE = 64
"""More rows cost memory for their keys and values and are hardly faster."""


@dataclass(slots=True)
class _Row:
    """One generation on its way: its last token, and how many are still to come at most."""

    key: Key
    task: Generation
    generator: torch.Generator
    remaining: int


@dataclass(slots=True)
class _Rows:
    """Rows that advance together.

    Attributes:
        rows: One for each element of the batch.
        fed: Ids that the model has not seen yet, shape (rows, new).
        mask: 1 where a token stands, 0 where padding, shape (rows, width), ``fed`` included.
        cache: Keys and values of what the model has seen; None before the first step.
    """

    rows: list[_Row]
    fed: torch.Tensor
    mask: torch.Tensor
    cache: Any = None


class TransformersBatch:
    """Advances tasks with PyTorch weights; a `joker.engines.tasks.Batch`.

    Args:
        model: A causal LM in evaluation mode, on the device where it is to run.
        end_id: The token that ends a joke.
    """

    capacity = _ROWS_AT_ONCE

    def __init__(self, model: PreTrainedModel, end_id: int) -> None:
        self._end_id = end_id
        self._model: Any = model
        # Models with relative positions take no position_ids.
        self._takes_positions = "position_ids" in signature(self._model.forward).parameters
        self._joining: dict[Key, Generation] = {}
        self._to_score: dict[Key, Scoring] = {}
        self._running: _Rows | None = None

    def add(self, key: Key, task: Task) -> None:
        """Let a task join; see `Batch.add`."""
        if isinstance(task, Generation):
            self._joining[key] = task
        else:
            self._to_score[key] = task

    def remove(self, key: Key) -> None:
        """Let a task leave unfinished; see `Batch.remove`."""
        self._joining.pop(key, None)
        self._to_score.pop(key, None)
        if self._running:
            self._running = _keep(self._running, [row.key != key for row in self._running.rows])

    def step(self) -> dict[Key, Output]:
        """Advance every task; see `Batch.step`."""
        with out_of_memory_as_resource_error("generating"), torch.inference_mode():
            outputs = self._score()
            if self._running:
                outputs |= self._advance(self._running)
            if self._joining:
                joined = self._join()
                outputs |= self._advance(joined)
                self._running = _merge(self._running, joined) if self._running else joined
            if self._running:
                going = [not outputs[row.key].done for row in self._running.rows]
                self._running = _keep(self._running, going)
        return outputs

    def _score(self) -> dict[Key, Output]:
        """Score all that waits for it: one pass of the model is all it takes."""
        tasks, self._to_score = self._to_score, {}
        jokes = [task.joke for task in tasks.values()]
        found = token_log_probabilities(self._model, [joke.input_ids for joke in jokes])
        return {
            key: Output(done=True, log_probability=float(each[joke.answer_start - 1 :].sum()))
            for key, joke, each in zip(tasks, jokes, found, strict=True)
        }

    def _join(self) -> _Rows:
        """Return the rows that wait to join, padded on the left to one width."""
        tasks, self._joining = self._joining, {}
        prompts = [task.prompt_ids for task in tasks.values()]
        width = max(map(len, prompts))
        ids = [[self._end_id] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self._model.device
        rows = [
            _Row(key, task, torch.Generator().manual_seed(task.seed), task.max_new_tokens)
            for key, task in tasks.items()
        ]
        return _Rows(rows, torch.tensor(ids, device=device), torch.tensor(mask, device=device))

    def _advance(self, running: _Rows) -> dict[Key, Output]:
        """Draw every row's next token."""
        fed, mask = running.fed, running.mask
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -fed.shape[-1] :]
        seen = self._model(
            input_ids=fed,
            attention_mask=mask,
            past_key_values=running.cache or DynamicCache(),
            use_cache=True,
            logits_to_keep=1,
            **({"position_ids": positions} if self._takes_positions else {}),
        )
        uniforms = [torch.rand((), generator=row.generator).item() for row in running.rows]
        samplings = [row.task.sampling for row in running.rows]
        drawn = draw(seen.logits[:, -1], samplings, uniforms).unsqueeze(-1)
        running.cache = seen.past_key_values
        running.fed = drawn
        running.mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
        outputs = {}
        for row, (token,) in zip(running.rows, drawn.tolist(), strict=True):
            row.remaining -= 1
            done = token == self._end_id or row.remaining == 0
            outputs[row.key] = Output([token], done)
        return outputs


def _keep(running: _Rows, kept: Sequence[bool]) -> _Rows | None:
    """Return the rows that are kept, without padding that none of them needs; None if none is."""
    if all(kept):
        return running
    places = [place for place, keep in enumerate(kept) if keep]
    if not places:
        return None
    chosen = torch.tensor(places, device=running.fed.device)
    mask = running.mask[chosen]
    # Without this a batch that never runs empty would grow with every step.
    padding = int(mask.any(0).int().argmax())
    running.cache.batch_select_indices(chosen)
    for layer in running.cache.layers if padding else ():
        layer.keys, layer.values = layer.keys[:, :, padding:], layer.values[:, :, padding:]
    rows = [running.rows[place] for place in places]
    return _Rows(rows, running.fed[chosen], mask[:, padding:], running.cache)


def _merge(one: _Rows, other: _Rows) -> _Rows:
    """Return the rows of both, the narrower ones padded on the left."""
    width = max(one.mask.shape[-1], other.mask.shape[-1])
    merged: Any = DynamicCache()
    new_layer: Any = DynamicLayer  # untyped
    for layers in zip(one.cache.layers, other.cache.layers, strict=True):
        layer = new_layer()
        keys, values = (
            torch.cat([_widen(getattr(each, name), width - 1) for each in layers])
            for name in ("keys", "values")
        )
        layer.update(keys, values)
        merged.layers.append(layer)
    mask = torch.cat([pad(each.mask, (width - each.mask.shape[-1], 0)) for each in (one, other)])
    return _Rows([*one.rows, *other.rows], torch.cat([one.fed, other.fed]), mask, merged)


def _widen(states: torch.Tensor, width: int) -> torch.Tensor:
    """Pad keys or values of shape (rows, heads, tokens, size) on the left to so many tokens."""
    return pad(states, (0, 0, width - states.shape[-2], 0))
