"""The errors that users can cause or run into, and what their messages are made of.

The command line prints one line and exits with ``exit_code``; the HTTP API maps the classes to
status codes. A message is one sentence that says what is wrong and what to do about it.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any


class JokerError(Exception):
    """Base class of all errors that this package raises."""

    exit_code = 1


class InputError(JokerError):
    """An argument, setting, file or model folder cannot be used."""

    exit_code = 2


class DataError(InputError):
    """A joke file or a prepared folder is missing, malformed or empty."""


class ConfigError(InputError):
    """A setting is unknown, or its value cannot be used."""


class TemplateError(InputError):
    """A template is unknown or ambiguous."""


class TokenizerError(InputError):
    """A tokenizer lacks what a template needs."""


class PromptError(InputError):
    """A prompt cannot be used by the model, such as one that is too long."""


class ModelFolderError(InputError):
    """A model folder or base model is missing, incomplete or of another format."""


class MissingDependencyError(JokerError):
    """An optional part of the package is not installed."""

    exit_code = 3


class ResourceError(JokerError):
    """The machine ran out of memory or disk."""

    exit_code = 4


class GenerationError(JokerError):
    """No acceptable joke was found for a request; a different request may succeed."""

    exit_code = 5


class PromptWithheldError(GenerationError):
    """Moderation withholds every joke on a prompt; only another prompt may succeed."""

    def __init__(self) -> None:
        super().__init__(
            "moderation withholds this prompt, and so every joke on it; try another one"
        )


class EngineDownError(JokerError):
    """A remote engine cannot be reached, failed or stopped responding; a retry may succeed."""

    exit_code = 7


class QueueError(JokerError):
    """The job queue cannot do what was asked."""

    exit_code = 6


class QueueFullError(QueueError):
    """Too many jobs are waiting already."""


class MemoryFullError(QueueFullError):
    """The queue's Redis has no memory left for another job."""


class QueueDownError(QueueError):
    """The queue cannot be reached."""


class QueueStoppedError(QueueError):
    """The process is stopping: it accepts no more jobs, and nobody may wait for one."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; try again in a few seconds")


class UnknownJobError(QueueError):
    """The job does not exist, or its result has expired."""


class KeyConflictError(QueueError):
    """An idempotency key was used for another request."""


class StoreDownError(JokerError):
    """The store of jokes and votes cannot be reached or used."""

    exit_code = 7


class UnknownJokeError(JokerError):
    """The joke does not exist, or has been deleted."""


class StoppedError(JokerError):
    """A signal such as Ctrl-C ended the work early; progress is kept."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, or its type's name if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def plural(count: float, noun: str, nouns: str | None = None) -> str:
    """Return the noun for a count: "joke" for 1, otherwise ``nouns``, by default "jokes"."""
    return noun if count == 1 else nouns or f"{noun}s"


def import_optional(module: str, need: str, *, extra: str = "train", otherwise: str = "") -> Any:
    """Import a module that an extra installs.

    Args:
        module: Its full name.
        need: The start of the error's advice "… pip install …", such as ``plots need``.
        extra: The extra.
        otherwise: What to do instead of installing it, if there is a choice.

    Raises:
        MissingDependencyError: If it, or something that it imports, cannot be imported.
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
