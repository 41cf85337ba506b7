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
"""Celery uses SIGHUP and SIGUSR1, and closing a terminal sends SIGHUP."""

_log = logging.getLogger(__name__)


def on_reload_signal(reload: Callable[[], None] | None) -> None:
    """Call a function whenever the process gets `RELOAD_SIGNAL`.

    Args:
        reload: Called in a new thread; its errors are logged. None only keeps the signal from
            ending the process.
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
    """Tells jokes with a model that can be reloaded, for any number of threads.

    Requests in progress finish with the old model, so two models are in memory for a while.

    Args:
        open_teller: Loads the model; called now and at each reload. The teller must be thread-safe.

    Raises:
        JokerError: If the model cannot be loaded.
    """

    def __init__(self, open_teller: Callable[[], Teller]) -> None:
        self._open_teller = open_teller
        self._current = open_teller()
        self._calls = {self._current: 0}
        self._lock = Lock()
        self._reloading = Lock()

    def tell(
        self, request: GenerationRequest, listener: GenerationListener | None = None
    ) -> list[GeneratedJoke]:
        """Tell the jokes of a request, as `Teller.tell` does."""
        with self._in_use() as teller:
            return teller.tell(request, listener)

    def reload(self) -> None:
        """Load the model again, for all further requests.

        Raises:
            JokerError: If it cannot be loaded; the old one stays.
        """
        with self._reloading:
            new = self._open_teller()
            with self._in_use(), self._lock:
                self._current = new
                self._calls[new] = 0
            _log.info("the model was reloaded", extra={"fields": {"model": new.model}})

    @contextmanager
    def _in_use(self) -> Iterator[Teller]:
        """Yield the current teller; afterwards close it if it was replaced and is now unused."""
        with self._lock:
            teller = self._current
            self._calls[teller] += 1
        try:
            yield teller
        finally:
            with self._lock:
                self._calls[teller] -= 1
                unused = teller is not self._current and not self._calls[teller]
                if unused:
                    del self._calls[teller]
            if unused:
                teller.close()
