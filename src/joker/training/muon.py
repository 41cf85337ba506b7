"""Muon for the hidden matrices, AdamW for the rest, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) makes each update
of a matrix orthogonal. GPT-2's fused ``c_attn`` is cut into query, key and value, which
are three matrices and not one; embeddings, biases and norms go to AdamW. With updates
scaled to AdamW's size (Liu et al. 2025, https://arxiv.org/abs/2502.16982) both share one
learning rate and schedule.

`torch.optim.Muon` computes in bfloat16 whatever the machine. Where a processor has no
instructions for it, that takes 22 times as long as float32 (docs/experiments.md), so the
number format is a setting here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

_FUSED = {"c_attn": 3}
"""Matrices that hold several side by side, by a part of their names."""

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, chosen by Jordan et al. for the steepest slope at 0."""

_ITERATIONS = 5
_LEAST_NORM = 1e-7
_ADAMW_RMS = 0.2
"""Root mean square of AdamW's updates, measured by Liu et al."""


def orthogonalize(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return about U V' for each matrix U S V', by the Newton-Schulz iteration.

    Singular values end up between about 0.7 and 1.2, which serves Muon as well as 1.

    Args:
        matrices: Shape (matrices, rows, columns).
        dtype: The number format to compute in and of what is returned.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.size(1) > matrices.size(2)
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_LEAST_NORM)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonWithAdamW(Optimizer):
    """Updates matrices inside the blocks by Muon and all else by AdamW.

    Args:
        model: A GPT-2; its blocks' parameters have names with ``.h.``.
        lr: Learning rate of both.
        weight_decay: Of all matrices, embeddings included; biases and norms have none.
        betas: AdamW's.
        momentum: Muon's, after Nesterov.
        dtype: The number format in which Muon makes updates orthogonal.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        lr: float,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        hidden: dict[int, list[Parameter]] = {}
        decayed: list[Parameter] = []
        plain: list[Parameter] = []
        for name, parameter in model.named_parameters():
            if parameter.ndim != 2:
                plain.append(parameter)
            elif ".h." not in name:
                decayed.append(parameter)
            else:
                parts = next((n for part, n in _FUSED.items() if part in name), 1)
                hidden.setdefault(parts, []).append(parameter)
        self._dtype = dtype
        self._adamw = AdamW(
            [
                {"params": decayed, "weight_decay": weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=lr,
            betas=betas,
            fused=True,
        )
        muon = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        groups = [{"params": held, "parts": n, **muon} for n, held in hidden.items()]
        self._muon_groups = len(groups)
        super().__init__([*groups, *self._adamw.param_groups], {})
        self._share_groups()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make one step of each from the gradients at hand, or those that a closure makes."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        for group in self.param_groups[: self._muon_groups]:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._muon_step(parameter, parameter.grad, group)
        self._adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        return {"muon": super().state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of both."""
        super().load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        self._share_groups()

    def _muon_step(
        self, parameter: Parameter, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        momentum, state = group["momentum"], self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        parts = torch.stack(gradient.lerp(average, momentum).chunk(group["parts"], dim=1))
        size = group["lr"] * _ADAMW_RMS * max(parts.shape[1:]) ** 0.5
        update = torch.cat(tuple(orthogonalize(parts, self._dtype)), dim=1)
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-size)

    def _share_groups(self) -> None:
        """Let a scheduler that sets this optimizer's learning rates set AdamW's too."""
        self._adamw.param_groups = self.param_groups[self._muon_groups :]
