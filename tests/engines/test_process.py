from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Pipe
from pathlib import Path

import pytest

from joker.core.errors import ModelFolderError
from joker.core.joke import Sampling
from joker.core.model_folder import ModelFolder
from joker.engines import open_batch
from joker.engines.process import EngineDiedError, ProcessRunner, Submit, serve
from joker.engines.protocol import AbandonedError, GenerationListener, load_tokenizer
from joker.engines.stub import StubBatch
from joker.engines.tasks import GenerationTask, Key, Output, ScoringTask

TASK = GenerationTask([0], Sampling(temperature=0, max_new_tokens=20), seed=0)


class Leaving(GenerationListener):
    """Waits for nothing."""

    def should_stop(self) -> bool:
        return True


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits for its exit code to be read does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):  # the second if it goes while it is read
        return False


def pid_of(engine: ProcessRunner) -> int:
    return engine._process.popen.pid


@pytest.fixture
def engine(tiny_folder: ModelFolder) -> Iterator[ProcessRunner]:
    engine = ProcessRunner(partial(open_batch, tiny_folder, "stub"))
    yield engine
    engine.close()


@pytest.fixture
def frozen(engine: ProcessRunner) -> Iterator[int]:
    """Return the id of the engine's process, which was stopped and will not answer."""
    os.kill(pid_of(engine), signal.SIGSTOP)
    pid = pid_of(engine)
    yield pid
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)


def test_the_model_is_in_another_process(engine: ProcessRunner) -> None:
    assert pid_of(engine) != os.getpid()
    (output,) = engine.run([TASK])
    assert len(output.token_ids) == 20
    assert output.done


def test_calls_of_a_process_that_dies_raise_and_the_next_gets_another(
    engine: ProcessRunner, frozen: int
) -> None:
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(engine.run, [TASK]) for _ in range(3)]
        time.sleep(0.2)
        os.kill(frozen, signal.SIGKILL)
        for call in calls:
            with pytest.raises(EngineDiedError):
                call.result(60)
    assert engine.run([TASK])[0].done
    assert pid_of(engine) != frozen


def test_a_process_killed_at_rest_is_started_again(engine: ProcessRunner) -> None:
    dead = pid_of(engine)
    os.kill(dead, signal.SIGKILL)
    until(lambda: not is_alive(dead))
    for _ in range(2):
        try:
            assert engine.run([TASK])[0].done
        except EngineDiedError:  # its death is not known at once
            continue
    assert pid_of(engine) != dead


def test_a_silent_process_is_ended(tiny_folder: ModelFolder) -> None:
    engine = ProcessRunner(partial(open_batch, tiny_folder, "stub"), timeout_seconds=0.5)
    os.kill(pid_of(engine), signal.SIGSTOP)
    with pytest.raises(EngineDiedError):
        engine.run([TASK])
    assert engine.run([TASK])[0].done
    time.sleep(0.7)
    assert engine.run([TASK])[0].done, "at rest silence is no fault"
    engine.close()


def test_a_call_that_nobody_waits_for_returns_though_the_process_hangs(
    engine: ProcessRunner, frozen: int
) -> None:
    with pytest.raises(AbandonedError):
        engine.run([TASK], Leaving())


def test_signals_to_the_whole_group_leave_it_at_work(engine: ProcessRunner) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid_of(engine), number)
    assert engine.run([TASK])[0].done


def test_a_model_that_cannot_be_loaded_says_why(tiny_folder: ModelFolder) -> None:
    with pytest.raises(ModelFolderError, match="joker export"):
        ProcessRunner(partial(open_batch, tiny_folder, "openvino"))


def test_a_process_that_dies_while_it_loads_raises() -> None:
    with pytest.raises(EngineDiedError, match="code 3"):
        ProcessRunner(partial(sys.exit, 3))


def test_it_does_not_outlive_whom_it_works_for(tiny_folder: ModelFolder) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from joker.core.model_folder import ModelFolder\n"
        "from joker.engines import open_batch\n"
        "from joker.engines.process import ProcessRunner\n"
        "from functools import partial\n"
        "folder = ModelFolder.open(Path(sys.argv[1]))\n"
        "print(ProcessRunner(partial(open_batch, folder, 'stub'))._process.popen.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_folder.path)], capture_output=True, text=True
    )
    assert done.returncode == -9
    until(lambda: not is_alive(int(done.stdout)))


class SteppedBatch(StubBatch):
    """A stub batch that steps when it is allowed to."""

    def __init__(self, folder: ModelFolder) -> None:
        super().__init__(load_tokenizer(folder, folder.path))
        self.steps = threading.Semaphore(0)
        self.sizes: list[int] = []

    def step(self) -> dict[Key, Output]:
        self.steps.acquire()
        outputs = super().step()
        self.sizes.append(len(outputs))
        return outputs


def test_a_call_joins_a_running_batch_and_leaves_before_its_end(tiny_folder: ModelFolder) -> None:
    batch = SteppedBatch(tiny_folder)
    ours, theirs = Pipe()

    def host() -> None:
        with pytest.raises(EOFError):
            serve(theirs, batch)

    thread = threading.Thread(target=host)
    thread.start()
    ours.send(Submit(1, [replace(TASK, streamed=True)]))
    batch.steps.release(2)
    assert [list(ours.recv()[1]) for _ in range(2)] == [[0], [0]]
    short = GenerationTask([0], Sampling(temperature=0, max_new_tokens=2), seed=0)
    ours.send(Submit(2, [short, short]))
    # One step may have begun before the call was seen.
    batch.steps.release(4)
    news = [ours.recv() for _ in range(4)]
    assert sum(2 in each for each in news) == 1, "what nobody follows comes once, at the end"
    (theirs_done,) = (each[2] for each in news if 2 in each)
    assert [len(output.token_ids) for output in theirs_done.values()] == [2, 2]
    assert 3 in batch.sizes
    batch.steps.release(100)
    while not ours.recv().get(1, {0: Output()})[0].done:
        pass
    assert batch.sizes[-1] == 1
    ours.close()
    thread.join(60)
    assert not thread.is_alive()


def test_a_step_that_breaks_down_ends_the_process(engine: ProcessRunner) -> None:
    dead = pid_of(engine)
    with pytest.raises(EngineDiedError):
        engine.run([ScoringTask(None)])  # type: ignore[arg-type]
    assert engine.run([TASK])[0].done
    assert pid_of(engine) != dead
