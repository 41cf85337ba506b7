from __future__ import annotations

import logging

import pytest

from joker.core.joke import Sampling
from joker.core.model_folder import ModelFolder
from joker.engines.engine import Scheduler
from joker.engines.protocol import load_tokenizer
from joker.engines.stub import StubBatch
from joker.engines.tasks import SEQUENCE_TOKENS, EngineTask, GenerationTask, Key

LONG = GenerationTask([0], Sampling(temperature=0, max_new_tokens=1_000), seed=0)


class NarrowBatch(StubBatch):
    """A stub batch of few tasks that remembers who joined, and takes no prompt of 13."""

    capacity = 3 * LONG.occupied

    def __init__(self, folder: ModelFolder) -> None:
        super().__init__(load_tokenizer(folder, folder.path))
        self.joined: list[Key] = []

    def add(self, key: Key, task: EngineTask) -> None:
        if isinstance(task, GenerationTask) and task.prompt_ids == [13]:
            raise RuntimeError("unlucky")
        super().add(key, task)
        self.joined.append(key)


@pytest.fixture
def batch(tiny_folder: ModelFolder) -> NarrowBatch:
    return NarrowBatch(tiny_folder)


@pytest.fixture
def scheduler(batch: NarrowBatch) -> Scheduler:
    return Scheduler(batch)


def finish(scheduler: Scheduler) -> list[Key]:
    """Step until nothing is left; return the tasks in the order they were done."""
    done = []
    while not scheduler.idle:
        done += [key for key, output in scheduler.step().items() if output.done]
    return done


def test_a_short_call_does_not_wait_for_a_long_one(scheduler: Scheduler) -> None:
    scheduler.submit(1, [LONG] * 30)
    scheduler.step()
    scheduler.submit(2, [LONG] * 2)
    done = finish(scheduler)
    assert len(done) == 32
    assert {(2, 0), (2, 1)} <= set(done[:9])


def test_calls_take_turns(scheduler: Scheduler, batch: NarrowBatch) -> None:
    for call in (1, 2, 3):
        scheduler.submit(call, [LONG] * 2)
    finish(scheduler)
    assert batch.joined == [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (3, 1)]


def test_the_batch_is_never_overfull(scheduler: Scheduler) -> None:
    scheduler.submit(1, [LONG] * 5)
    while not scheduler.idle:
        assert len(scheduler.step()) <= 3


@pytest.mark.parametrize(
    ("tokens", "joined"), [(1, 4), (SEQUENCE_TOKENS - 1, 4), (SEQUENCE_TOKENS, 3)]
)
def test_a_task_takes_a_fixed_share_or_all_the_tokens_that_it_may_have(
    batch: NarrowBatch, tokens: int, joined: int
) -> None:
    batch.capacity = 4 * SEQUENCE_TOKENS
    scheduler = Scheduler(batch)
    scheduler.submit(1, [GenerationTask([0], Sampling(max_new_tokens=tokens), seed=0)] * 9)
    scheduler.step()
    assert len(batch.joined) == joined


def test_a_task_larger_than_the_batch_runs_alone(batch: NarrowBatch) -> None:
    batch.capacity = SEQUENCE_TOKENS
    scheduler = Scheduler(batch)
    scheduler.submit(1, [LONG] * 2)
    scheduler.step()
    assert batch.joined == [(1, 0)]
    assert finish(scheduler) == [(1, 0), (1, 1)]


def test_a_cancelled_call_makes_room_at_once(scheduler: Scheduler, batch: NarrowBatch) -> None:
    scheduler.submit(1, [LONG] * 30)
    scheduler.submit(2, [LONG])
    scheduler.step()
    scheduler.cancel(1)
    assert set(scheduler.step()) == {(2, 0)}
    assert finish(scheduler) == [(2, 0)]


def test_a_task_that_cannot_be_taken_costs_the_others_nothing(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.submit(1, [LONG, GenerationTask([13], Sampling(max_new_tokens=5), seed=0)])
    with caplog.at_level(logging.ERROR):
        outputs = scheduler.step()
    assert outputs[1, 1].done
    assert "rejected this request" in str(outputs[1, 1].error)
    assert "unlucky" in caplog.text
    assert finish(scheduler) == [(1, 0)]


def test_a_call_without_tasks_changes_nothing(scheduler: Scheduler) -> None:
    scheduler.submit(1, [])
    scheduler.cancel(1)
    assert scheduler.idle
