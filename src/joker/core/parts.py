"""Optional parts of the package: imported where they are needed, missing in one sentence."""

from __future__ import annotations

import importlib
from typing import Any

from joker.core.errors import MissingPartError


def import_part(module: str, need: str) -> Any:
    """Import a module that the extra ``train`` installs.

    Args:
        module: Its full name.
        need: The start of the sentence that ends in "pip install …", such as ``plots need``.

    Raises:
        MissingPartError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPartError(
            f"{module.partition('.')[0]} is not installed; {need} "
            "pip install 'gpt2-the-joker[train]'"
        ) from error
