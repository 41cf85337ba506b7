"""Optional dependencies, which are imported where they are needed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from joker.core.errors import MissingDependencyError, first_line


def import_optional(module: str, need: str, *, extra: str = "train", otherwise: str = "") -> Any:
    """Import a module that an extra installs.

    Args:
        module: Its full name.
        need: The start of the error's advice "… pip install …", such as ``plots need``.
        extra: The extra.
        otherwise: What to do instead of installing it, if there is a choice.

    Raises:
        MissingDependencyError: If it, or something that it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        state = "is not installed"
        if not isinstance(error, ModuleNotFoundError):
            state = f"cannot be imported ({first_line(error)})"
        choice = f", or {otherwise}" if otherwise else ""
        raise MissingDependencyError(
            f"{missing} {state}; {need} pip install 'gpt2-the-joker[{extra}]'{choice}"
        ) from error


def require_training() -> None:
    """Raise a `MissingDependencyError` unless the extra ``train`` is installed."""
    module = missing_training_module()
    if module is not None:
        raise MissingDependencyError(
            f"{module} is not installed; training and evaluation need "
            "pip install 'gpt2-the-joker[train]'"
        )


def missing_training_module() -> str | None:
    """Return the first module of the extra ``train`` that is not installed, or None."""
    modules = ("torch", "transformers", "mlflow")
    return next((name for name in modules if importlib.util.find_spec(name) is None), None)
