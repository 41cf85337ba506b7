"""The heartbeat: a file that is touched while this process is healthy.

Liveness probes check the file's age, as in ``deploy/``. It goes stale if the process is stuck or no
longer polls for jobs. A hanging engine does not count, because `joker.engines.process` restarts it;
nor does an unreachable Redis, because a restarted worker would not reach it either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from joker.core.errors import ConfigError

_TOUCH_SECONDS = 5.0
# Celery's consumer polls every second or two.
_STUCK_SECONDS = 30.0


class Liveness:
    """Detects whether a loop is stuck."""

    def __init__(self) -> None:
        self._last_beat: float | None = None

    def beat(self) -> None:
        """Record an iteration of the loop."""
        self._last_beat = time.monotonic()

    def pause(self) -> None:
        """Expect no iterations until the next one."""
        self._last_beat = None

    def is_alive(self) -> bool:
        """Return whether the loop is paused or its last iteration is recent."""
        last_beat = self._last_beat
        return last_beat is None or time.monotonic() - last_beat < _STUCK_SECONDS


@contextmanager
def heartbeat_file(path: Path, is_healthy: Callable[[], bool]) -> Iterator[None]:
    """Touch a file every few seconds within the context, and remove it at the end.

    Args:
        path: The file.
        is_healthy: While it returns false, the file is not touched.

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

    def run() -> None:
        while not ended.wait(_TOUCH_SECONDS):
            if is_healthy():
                path.touch()

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)
