"""GPT-2 the Joker: learns to invent question-and-answer jokes, and tells them.

``joker.tell("Why do cats")`` tells one; docs/python.md describes the API. Names are imported on
first use, so that ``import joker`` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from joker.version import __version__

if TYPE_CHECKING:
    from joker.core.errors import GenerationError, InputError, JokerError
    from joker.core.joke import GeneratedJoke, Sampling
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

if not TYPE_CHECKING:  # type checkers use the imports above
    _MODULES = {
        "GeneratedJoke": "joker.core.joke",
        "GenerationError": "joker.core.errors",
        "InputError": "joker.core.errors",
        "Joker": "joker.library",
        "JokerError": "joker.core.errors",
        "Jokes": "joker.library",
        "Sampling": "joker.core.joke",
        "tell": "joker.library",
    }

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)

    def __dir__():
        return __all__
