"""Trainer callbacks: progress, evaluations, checkpoints and stopping on a signal."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from joker.core.joke import Joke

_COMPLETE = "complete"
"""File that marks a checkpoint as complete."""

_MAX_EVALUATIONS = 20
"""Maximum number of evaluations in a run."""
_MAX_EVALUATION_SHARE = 0.05
"""Maximum share of a run's arithmetic for evaluations. While they take a larger share of its time,
only the last one samples jokes."""
_FORWARD_COST = 1 / 3
"""Cost of a forward pass relative to a training step, which also has a backward pass."""


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint, or None.

    A run that is killed while it writes a checkpoint leaves one that `CheckpointCallback` has not
    marked as complete.
    """
    complete = [path.parent for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{_COMPLETE}")]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class CheckpointCallback(TrainerCallback):
    """Saves a checkpoint every few minutes and marks each as complete once it is written."""

    def __init__(self, minutes: float) -> None:
        self._interval_seconds = minutes * 60
        self._saved_at = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a checkpoint when one is due."""
        if _any_process(time.monotonic() - self._saved_at >= self._interval_seconds, args):
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Mark the checkpoint just written as complete."""
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            (folder / _COMPLETE).touch()
        self._saved_at = time.monotonic()


class SignalCallback(TrainerCallback):
    """Stops training with a checkpoint at the first Ctrl-C or SIGTERM.

    A second Ctrl-C ends the program at once.

    Attributes:
        stopped: Whether training was stopped this way.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._previous_handlers: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Install the signal handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous_handlers[number] = signal.signal(number, self._handle)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save and stop at the end of the step in which the signal came."""
        if _any_process(self.stopped, args):
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Restore the previous signal handlers."""
        self.restore()

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        self.restore()


def evaluation_interval(steps: int, tokens_per_step: float, validation_tokens: int) -> int:
    """Return the number of optimizer steps between evaluations.

    Args:
        steps: Optimizer steps of the training.
        tokens_per_step: Training tokens in a step.
        validation_tokens: Tokens in an evaluation.
    """
    cost_in_steps = validation_tokens * _FORWARD_COST / tokens_per_step
    return max(
        1,
        math.ceil(steps / _MAX_EVALUATIONS),
        math.ceil(cost_in_steps / _MAX_EVALUATION_SHARE),
    )


class ProgressCallback(TrainerCallback):
    """Shows losses, speed and remaining time on standard error, and requests evaluations.

    On a terminal it draws a bar; into a log file it writes a line every 5% of the steps.

    Args:
        tokens_per_step: Mean number of training tokens in an optimizer step, without padding, in
            all processes together.
        validation_tokens: Tokens in an evaluation.
        sample: Returns sample jokes to show after an evaluation, given the step.

    Attributes:
        tokens_per_second: Speed after the first step, which includes compiling and warming up; time
            spent on evaluations does not count.
        evaluation_share: Share of the training time so far that evaluations took.
    """

    def __init__(
        self,
        tokens_per_step: float,
        validation_tokens: int,
        sample: Callable[[int], Sequence[Joke]],
    ) -> None:
        self._tokens_per_step = tokens_per_step
        self._validation_tokens = validation_tokens
        self._sample = sample
        self.tokens_per_second = 0.0
        self.evaluation_share = 0.0
        self._losses = ""
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("training", note="")
        self._interval = 1
        self._started_at = self._evaluation_started_at = time.monotonic()
        self._evaluation_seconds = 0.0
        self._first_step: tuple[float, int] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the bar, at the first step of a resumed run."""
        self._started_at = time.monotonic()
        self._interval = evaluation_interval(
            state.max_steps, self._tokens_per_step, self._validation_tokens
        )
        if state.is_world_process_zero:
            self._progress.update(self._task, total=state.max_steps, completed=state.global_step)
            self._progress.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Note the newest losses."""
        if logs and "loss" in logs:
            self._losses = f"loss {float(logs['loss']):.3f}"
            if "answer_loss" in logs:
                self._losses += f" (answers {float(logs['answer_loss']):.3f})"

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Update the bar, and request an evaluation at regular steps and at the last one."""
        now = time.monotonic()
        clock = now - self._evaluation_seconds  # stands still during evaluations
        self.evaluation_share = self._evaluation_seconds / max(now - self._started_at, 1e-9)
        if self._first_step is None:
            self._first_step = clock, state.global_step
        first_clock, first_step = self._first_step
        tokens = (state.global_step - first_step) * self._tokens_per_step
        self.tokens_per_second = tokens / max(clock - first_clock, 1e-9)
        note = f"{self._losses} {self.tokens_per_second:,.0f} tokens/s"
        self._progress.update(self._task, completed=state.global_step, note=note.strip())
        last = state.global_step == state.max_steps
        logged = last or state.global_step % max(1, state.max_steps // 20) == 0
        if logged and state.is_world_process_zero and not self._progress.console.is_terminal:
            self._progress.refresh()
            self._progress.console.print(self._progress.get_renderable())
        control.should_evaluate = last or state.global_step % self._interval == 0
        self._evaluation_started_at = now

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **results: Any,
    ) -> None:
        """Show the result of an evaluation, with sample jokes."""
        if state.is_world_process_zero:
            bits = results["metrics"]["eval_bits_per_byte"]
            console = self._progress.console
            console.print(f"step {state.global_step}: {bits:.3f} bits per byte on validation jokes")
            last = state.global_step == state.max_steps
            affordable = last or self.evaluation_share <= _MAX_EVALUATION_SHARE
            # If the training diverged, there are no probabilities to sample from.
            if affordable and math.isfinite(bits):
                for joke in self._sample(state.global_step):
                    text = f"  {joke.question} {joke.answer}"
                    console.print(text, markup=False, highlight=False)
        now = time.monotonic()
        self._evaluation_seconds += now - self._evaluation_started_at
        self.evaluation_share = self._evaluation_seconds / (now - self._started_at)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Leave the finished bar on the screen."""
        self.close()

    def close(self) -> None:
        """Stop drawing the bar, however the training ended."""
        self._progress.stop()


def _any_process(flag: bool, args: TrainingArguments) -> bool:
    """Return whether the flag is set in any process, so that all act at the same step."""
    if args.world_size == 1:
        return flag
    flags = torch.tensor(float(flag), device=args.device)
    torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
    return bool(flags)
