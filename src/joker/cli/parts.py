"""Optional parts of the package: said in one sentence when a command needs one that is missing."""

from __future__ import annotations

import importlib.util

from joker.core.errors import MissingPartError


def require_training() -> None:
    """Make sure the extra ``train`` is installed.

    Raises:
        MissingPartError: If PyTorch, Transformers or MLflow is missing.
    """
    for module in ("torch", "transformers", "mlflow"):
        if importlib.util.find_spec(module) is None:
            raise MissingPartError(
                f"{module} is not installed; training and evaluation need "
                "pip install 'gpt2-the-joker[train]'"
            )
