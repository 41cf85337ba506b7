"""The errors that users can cause or run into.

The command line prints one line and exits with ``exit_code``; the HTTP API maps the classes to
status codes. So a traceback always means a bug.

A message is one sentence that says what is wrong and what to do about it.
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, or its type's name if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
        super().__init__("the prompt itself is withheld by moderation; change it")


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
