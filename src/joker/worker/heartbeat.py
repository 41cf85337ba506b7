"""The heartbeat: a file that is touched while this process is healthy.

Container probes check its age, as in ``deploy/``. Only a stuck process lets it grow old:
`joker.engines.process` handles an engine that hangs, and an unreachable Redis does not count,
because a new process would not reach it either.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from joker.core.errors import ConfigError

_PAUSE_SECONDS = 5.0


@contextmanager
def beating(path: Path) -> Iterator[None]:
    """Touch a file every few seconds within the context; remove it at the end.

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
            path.touch()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)
