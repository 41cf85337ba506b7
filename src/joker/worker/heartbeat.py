"""The heartbeat: a file that is touched as long as this process is well.

Probes of containers look at its age, as the files in ``deploy/`` show. It grows old where this
process is stuck; an engine that hangs is `joker.engines.process`' matter, and a Redis that is
away ages nothing, because a new process would not reach it either.
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
    """Touch a file every few seconds within the context, and remove it in the end.

    Raises:
        ConfigError: If the file cannot be written.
    """
    try:
        path.touch()
    except OSError as error:
        raise ConfigError(
            f"the heartbeat {path} cannot be written: {(error.strerror or str(error)).lower()}; "
            "choose another place with JOKER_HEARTBEAT"
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
