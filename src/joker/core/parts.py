"""Optional parts of the package: imported where they are needed, missing in one sentence."""

from __future__ import annotations

import importlib
from typing import Any

from joker.core.errors import MissingPartError


def import_part(module: str, need: str, *, extra: str = "train") -> Any:
    """Import a module that an extra installs.

    Args:
        module: Its full name.
        need: The start of the sentence that ends in "pip install …", such as ``plots need``.
        extra: The extra.

    Raises:
        MissingPartError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise MissingPartError(
            f"{missing} is not installed; {need} pip install 'gpt2-the-joker[{extra}]'"
        ) from error
