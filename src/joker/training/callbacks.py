"""What happens beside a training step: progress, evaluations, stopping, whole checkpoints."""

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

_EVALUATIONS = 20
"""Maximum number of evaluations in a run."""
_EVALUATION_SHARE = 0.05
"""Largest share of a run's arithmetic for evaluations. While they take a larger share of its time,
only the last one samples jokes."""
_FORWARD = 1 / 3
"""Cost of a forward pass relative to a training step, which also has a backward pass."""


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, or None.

    A kill in the middle of writing leaves a folder without the mark that
    `CheckpointCallback` sets last; such a folder is passed over.
    """
    whole = [path.parent for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{_COMPLETE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class CheckpointCallback(TrainerCallback):
    """Asks for a checkpoint every so many minutes and marks each as complete once written."""

    def __init__(self, minutes: float) -> None:
        self._interval_seconds = minutes * 60
        self._last = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a checkpoint when one is due."""
        if _agreed(time.monotonic() - self._last >= self._interval_seconds, args):
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Mark the checkpoint just written as complete."""
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            (folder / _COMPLETE).touch()
        self._last = time.monotonic()


class SignalCallback(TrainerCallback):
    """Turns the first Ctrl-C (or SIGTERM) into a checkpoint and a clean stop.

    A second Ctrl-C ends the program at once.

    Attributes:
        stopped: Whether training was stopped this way.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._former: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take over the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._handle)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save and stop at the end of the step in which the signal came."""
        if _agreed(self.stopped, args):
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Give the signals back."""
        self.restore()

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        self.restore()


def evaluation_interval(steps: int, tokens_per_step: float, validation_tokens: int) -> int:
    """Return after how many optimizer steps the next evaluation is due.

    Args:
        steps: Optimizer steps of the training.
        tokens_per_step: Tokens that a step learns from.
        validation_tokens: Tokens that an evaluation reads.
    """
    cost_in_steps = validation_tokens * _FORWARD / tokens_per_step
    return max(1, math.ceil(steps / _EVALUATIONS), math.ceil(cost_in_steps / _EVALUATION_SHARE))


class ProgressCallback(TrainerCallback):
    """Shows losses, speed and time left on standard error, and asks for evaluations.

    On a terminal it draws a bar; into a log file it writes a line for every twentieth of the way.

    Args:
        tokens_per_step: Mean number of tokens read in one optimizer step, padding left out, all
            processes together.
        validation_tokens: Tokens that an evaluation reads.
        sample: Tells sample jokes after an evaluation, given the step.

    Attributes:
        tokens_per_second: Speed since the first step, which compiling and warming up slow down;
            the time for evaluations does not count.
        evaluation_share: Share of the time since the training began that evaluations took.
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
        self._begun = self._evaluation_begun = time.monotonic()
        self._evaluation_seconds = 0.0
        self._first: tuple[float, int] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the bar, at the step a resumed run begins with."""
        self._begun = time.monotonic()
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
        """Take over the newest losses."""
        if logs and "loss" in logs:
            self._losses = f"loss {float(logs['loss']):.3f}"
            if "answer_loss" in logs:
                self._losses += f" (answers {float(logs['answer_loss']):.3f})"

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Move the bar, and ask for an evaluation at regular steps and at the last one."""
        now = time.monotonic()
        worked = now - self._evaluation_seconds
        self.evaluation_share = self._evaluation_seconds / max(now - self._begun, 1e-9)
        since, first = self._first = self._first or (worked, state.global_step)
        steps = state.global_step - first
        self.tokens_per_second = steps * self._tokens_per_step / max(worked - since, 1e-9)
        note = f"{self._losses} {self.tokens_per_second:,.0f} tokens/s"
        self._progress.update(self._task, completed=state.global_step, note=note.strip())
        last = state.global_step == state.max_steps
        written = last or state.global_step % max(1, state.max_steps // 20) == 0
        if written and state.is_world_process_zero and not self._progress.console.is_terminal:
            self._progress.refresh()
            self._progress.console.print(self._progress.get_renderable())
        control.should_evaluate = last or state.global_step % self._interval == 0
        self._evaluation_begun = now

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **results: Any,
    ) -> None:
        """Show what an evaluation measured, with sample jokes."""
        if state.is_world_process_zero:
            bits = results["metrics"]["eval_bits_per_byte"]
            say = self._progress.console.print
            say(f"step {state.global_step}: {bits:.3f} bits per byte on validation jokes")
            last = state.global_step == state.max_steps
            affordable = last or self.evaluation_share <= _EVALUATION_SHARE
            # A training that diverged has no probabilities to draw from.
            told = affordable and math.isfinite(bits)
            for joke in self._sample(state.global_step) if told else ():
                say(f"  {joke.question} {joke.answer}", markup=False, highlight=False)
        now = time.monotonic()
        self._evaluation_seconds += now - self._evaluation_begun
        self.evaluation_share = self._evaluation_seconds / (now - self._begun)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Leave the finished bar on the screen."""
        self.close()

    def close(self) -> None:
        """Take the bar down, whatever ended the training."""
        self._progress.stop()


def _agreed(wanted: bool, args: TrainingArguments) -> bool:
    """Say whether any process wants something, so that all do it at the same step."""
    if args.world_size == 1:
        return wanted
    votes = torch.tensor(float(wanted), device=args.device)
    torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
    return bool(votes)
