"""Muon for the hidden matrices, AdamW for the rest, as one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) makes each update
of a matrix orthogonal. `torch.optim.Muon` does the work; here GPT-2's fused ``c_attn``
is cut into query, key and value, which are three matrices and not one, and embeddings,
biases and norms go to AdamW. With updates scaled to AdamW's size (Liu et al. 2025,
https://arxiv.org/abs/2502.16982) both share one learning rate and schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import AdamW, Muon, Optimizer

_FUSED = {"c_attn": 3}
"""Matrices that hold several side by side, by a part of their names."""


class MuonWithAdamW(Optimizer):
    """Updates matrices inside the blocks by Muon and all else by AdamW.

    Args:
        model: A GPT-2; its blocks' parameters have names with ``.h.``.
        lr: Learning rate of both.
        weight_decay: Of all matrices, embeddings included; biases and norms have none.
        betas: AdamW's.
        momentum: Muon's.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        lr: float,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
    ) -> None:
        hidden: list[Parameter] = []
        decayed: list[Parameter] = []
        plain: list[Parameter] = []
        self._views: list[tuple[Parameter, int, list[Parameter]]] = []
        for name, parameter in model.named_parameters():
            if parameter.ndim != 2:
                plain.append(parameter)
            elif ".h." not in name:
                decayed.append(parameter)
            else:
                parts = next((n for part, n in _FUSED.items() if part in name), 1)
                # Views share the matrix's memory: what Muon does to them it does to the matrix.
                views = [Parameter(view) for view in parameter.detach().chunk(parts, dim=1)]
                self._views.append((parameter, parts, views))
                hidden += views
        self._muon = Muon(
            hidden,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = AdamW(
            [
                {"params": decayed, "weight_decay": weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=lr,
            betas=betas,
            fused=True,
        )
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share_groups()

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make one step of each from the gradients at hand, or those that a closure makes."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        for parameter, parts, views in self._views:
            if parameter.grad is not None:
                for view, gradient in zip(views, parameter.grad.chunk(parts, dim=1), strict=True):
                    view.grad = gradient
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adamw.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        self._adamw.zero_grad(set_to_none)
        for parameter, _, views in self._views:
            for held in (parameter, *views):
                held.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of both."""
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        self._share_groups()

    def _share_groups(self) -> None:
        """Let a scheduler that sets this optimizer's learning rates set both parts'."""
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]
