"""GPT-2 the Joker: learns to invent question-and-answer jokes, and tells them."""

from joker.version import __version__

__all__ = ["__version__"]
