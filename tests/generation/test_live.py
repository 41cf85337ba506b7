from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from joker.core.errors import ModelFolderError
from joker.engines.protocol import GenerationListener
from joker.engines.tasks import GenerationTask
from joker.generation.teller import RELOAD_SIGNAL, LiveTeller, Teller, on_reload_signal
from tests.generation.stub import StubEngine, ask, good


class Models:
    """Opens tellers with the models "1", "2" and so on, and knows which are released."""

    def __init__(self, script: Callable[[GenerationTask], str] = good) -> None:
        self.closed: list[str] = []
        self.error: Exception | None = None
        self._script = script
        self._count = 0

    def open(self) -> Teller:
        if self.error:
            raise self.error
        self._count += 1
        name, engine = str(self._count), StubEngine(self._script)
        engine.close = lambda: self.closed.append(name)  # type: ignore[method-assign]
        return Teller(engine, model=name)


def told_by(teller: LiveTeller) -> str | None:
    return teller.tell(ask("Why"), GenerationListener())[0].model


def test_after_a_reload_the_new_model_tells_and_the_old_one_is_released() -> None:
    models = Models()
    teller = LiveTeller(models.open)
    assert told_by(teller) == "1"
    teller.reload()
    assert told_by(teller) == "2"
    assert models.closed == ["1"]


def test_a_request_ends_with_the_model_that_it_began_with() -> None:
    begun, reloaded = threading.Event(), threading.Event()

    def slowly(task: GenerationTask) -> str:
        begun.set()
        assert reloaded.wait(60)
        return good(task)

    models = Models(slowly)
    teller = LiveTeller(models.open)
    told: list[str | None] = []
    asking = threading.Thread(target=lambda: told.append(told_by(teller)))
    asking.start()
    assert begun.wait(60)
    teller.reload()
    assert models.closed == []
    reloaded.set()
    asking.join(60)
    assert told == ["1"]
    assert models.closed == ["1"]
    assert told_by(teller) == "2"


@pytest.fixture
def _own_signal() -> Iterator[None]:
    before = signal.getsignal(RELOAD_SIGNAL)
    yield
    signal.signal(RELOAD_SIGNAL, before)


def wait_until(met: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not met():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.usefixtures("_own_signal")
def test_a_model_that_cannot_be_loaded_leaves_the_old_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    models = Models()
    teller = LiveTeller(models.open)
    on_reload_signal(teller.reload)
    models.error = ModelFolderError("mine has no weights")
    os.kill(os.getpid(), RELOAD_SIGNAL)
    wait_until(lambda: "the model was not reloaded: mine has no weights" in caplog.text)
    assert told_by(teller) == "1"
    assert models.closed == []
    models.error = None
    os.kill(os.getpid(), RELOAD_SIGNAL)
    wait_until(lambda: "the model was reloaded" in caplog.text)
    assert told_by(teller) == "2"
