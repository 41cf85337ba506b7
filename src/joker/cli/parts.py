"""Optional dependencies: checks that those of a command are installed."""

from __future__ import annotations

import importlib.util

from joker.core.errors import MissingPartError


def require_training() -> None:
    """Make sure the extra ``train`` is installed.

    Raises:
        MissingPartError: If PyTorch, Transformers or MLflow is missing.
    """
    module = missing_for_training()
    if module is not None:
        raise MissingPartError(
            f"{module} is not installed; training and evaluation need "
            "pip install 'gpt2-the-joker[train]'"
        )


def missing_for_training() -> str | None:
    """Return the first module of the extra ``train`` that is not installed, or None."""
    modules = ("torch", "transformers", "mlflow")
    return next((name for name in modules if importlib.util.find_spec(name) is None), None)
