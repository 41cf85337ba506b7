"""A teller whose model can be replaced while it tells jokes."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread

from joker.core.errors import JokerError
from joker.core.joke import GeneratedJoke
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.generation.teller import Teller

RELOAD_SIGNAL = signal.SIGUSR2
"""Celery has a use for SIGHUP and SIGUSR1, and a terminal that closes sends SIGHUP."""

_log = logging.getLogger(__name__)


def on_reload_signal(reload: Callable[[], None] | None) -> None:
    """From now on call a function whenever the process gets `RELOAD_SIGNAL`.

    Args:
        reload: Called in a thread of its own; what it raises is logged. None ignores the signal,
            which would end the process otherwise.
    """

    def try_to_reload() -> None:
        try:
            if reload:
                reload()
        except JokerError as error:
            _log.error("the model was not reloaded: %s", error)
        except Exception:
            _log.exception("the model was not reloaded")

    def handle(*_: object) -> None:
        Thread(target=try_to_reload, name="reload", daemon=True).start()

    signal.signal(RELOAD_SIGNAL, handle)


class LiveTeller:
    """Tells jokes with the newest of its tellers, for any number of threads.

    A request that has begun ends with the teller that it began with, so two models are in memory
    for a while.

    Args:
        open_teller: Loads the model; called now and at each reload. The teller must be thread-safe.

    Raises:
        JokerError: If the model cannot be loaded.
    """

    def __init__(self, open_teller: Callable[[], Teller]) -> None:
        self._open_teller = open_teller
        self._newest = open_teller()
        self._calls = {self._newest: 0}
        self._lock = Lock()
        self._reloading = Lock()

    def tell(
        self, request: GenerationRequest, listener: GenerationListener | None = None
    ) -> list[GeneratedJoke]:
        """Tell the jokes of a request, as `Teller.tell` does."""
        with self._in_use() as teller:
            return teller.tell(request, listener)

    def reload(self) -> None:
        """Load the model again, and tell all further jokes with it.

        Raises:
            JokerError: If it cannot be loaded; the old one stays.
        """
        with self._reloading:
            newest = self._open_teller()
            with self._in_use(), self._lock:
                self._newest = newest
                self._calls[newest] = 0
            _log.info("the model was reloaded", extra={"fields": {"model": newest.model}})

    @contextmanager
    def _in_use(self) -> Iterator[Teller]:
        """Give the newest teller; close it afterwards if it is neither new nor used any longer."""
        with self._lock:
            teller = self._newest
            self._calls[teller] += 1
        try:
            yield teller
        finally:
            with self._lock:
                self._calls[teller] -= 1
                unused = teller is not self._newest and not self._calls[teller]
                if unused:
                    del self._calls[teller]
            if unused:
                teller.close()
