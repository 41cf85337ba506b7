"""GPT-2 the Joker: learns to invent question-and-answer jokes, and tells them.

``joker.tell("Why do cats")`` tells one. Names are loaded when they are first used, so importing the
package costs nothing; docs/python.md describes them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from joker.version import __version__

if TYPE_CHECKING:
    from joker.core.errors import GenerationError, InputError, JokerError
    from joker.core.joke import GeneratedJoke
    from joker.core.sampling import Sampling
    from joker.library import Joker, Jokes, tell

__all__ = [
    "GeneratedJoke",
    "GenerationError",
    "InputError",
    "Joker",
    "JokerError",
    "Jokes",
    "Sampling",
    "__version__",
    "tell",
]

if not TYPE_CHECKING:  # for type checkers there are only the names above
    _PLACES = {
        "GeneratedJoke": ("joker.core.joke", "GeneratedJoke"),
        "GenerationError": ("joker.core.errors", "GenerationError"),
        "InputError": ("joker.core.errors", "InputError"),
        "Joker": ("joker.library", "Joker"),
        "JokerError": ("joker.core.errors", "JokerError"),
        "Jokes": ("joker.library", "Jokes"),
        "Sampling": ("joker.core.sampling", "Sampling"),
        "tell": ("joker.library", "tell"),
    }

    def __getattr__(name):
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, own = _PLACES[name]
        return getattr(import_module(module), own)

    def __dir__():
        return __all__
