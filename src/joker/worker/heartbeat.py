"""The heartbeat: a file that is touched while this process is healthy.

Container probes check its age, as in ``deploy/``. It grows old if the process is stuck or no longer
looks for jobs; `joker.engines.process` handles an engine that hangs, and an
unreachable Redis does not count, because a new process would not reach it either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from joker.core.errors import ConfigError

_PAUSE_SECONDS = 5.0
# Who looks for jobs does so every second or two.
_SILENT_SECONDS = 30.0


class Pulse:
    """Tells whether a loop that should go round all the time still does."""

    def __init__(self) -> None:
        self._last: float | None = None

    def beat(self) -> None:
        """Note that the loop goes round."""
        self._last = time.monotonic()

    def pause(self) -> None:
        """Note that the loop has ended, until it beats again."""
        self._last = None

    def is_there(self) -> bool:
        """Return false if the loop is stuck."""
        last = self._last
        return last is None or time.monotonic() - last < _SILENT_SECONDS


@contextmanager
def beating(path: Path, healthy: Callable[[], bool]) -> Iterator[None]:
    """Touch a file every few seconds within the context; remove it at the end.

    Args:
        path: The file.
        healthy: The file is left alone while this is false.

    Raises:
        ConfigError: If the file cannot be written.
    """
    try:
        path.touch()
    except OSError as error:
        raise ConfigError(
            f"the heartbeat {path} cannot be written: {(error.strerror or str(error)).lower()}; "
            "choose another path with JOKER_HEARTBEAT"
        ) from error
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_PAUSE_SECONDS):
            if healthy():
                path.touch()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)
