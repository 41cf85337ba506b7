"""MLflow Tracking: every run's parameters, metrics, samples and model, never at a run's expense.

`MLFLOW_TRACKING_URI` decides where runs go; without it a SQLite file in the working
directory does. When a server cannot be reached, or goes away in the middle, what the
run has told so far is written to that SQLite file and the run goes on there.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder

LOCAL_STORE = "sqlite:///mlflow.db"
EXPERIMENT = "joker"
REGISTERED_MODEL = "joker"

logger = logging.getLogger(__name__)


class Tracker:
    """One MLflow run, as a context manager; a run inside another's block becomes its child.

    Args:
        run_name: What the run is called in MLflow.
    """

    _open: ClassVar[list[Tracker]] = []
    """Trackers inside whose block the program is, outermost first."""

    def __init__(self, run_name: str) -> None:
        self.run_name = run_name
        self._params: dict[str, Any] = {}
        self._metrics: list[tuple[dict[str, float], int]] = []
        self._working = True
        # MLflow's own patience, seven tries with growing pauses, would hold a training up for
        # minutes at each call.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

    def __enter__(self) -> Tracker:
        if not self._open:
            mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_STORE)
        self._attempt(self._start)
        self._open.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        status = "FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED"
        self._open.remove(self)
        self._attempt(lambda: mlflow.end_run(status))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings, nested mappings flattened with dots."""
        flat = dict(_flattened(params))
        self._attempt(lambda: mlflow.log_params(flat))
        self._params.update(flat)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record figures at an optimizer step."""
        figures = {key: float(value) for key, value in metrics.items()}
        self._attempt(lambda: mlflow.log_metrics(figures, step=step))
        self._metrics.append((figures, step))

    def log_jokes(self, jokes: Sequence[Joke]) -> None:
        """Record sample jokes as a table."""
        table = {"question": [j.question for j in jokes], "answer": [j.answer for j in jokes]}
        self._attempt(lambda: mlflow.log_table(table, "sample_jokes.json"))

    def log_file(self, path: Path) -> None:
        """Record a file, such as a plot."""
        self._attempt(lambda: mlflow.log_artifact(str(path)))

    def register(self, folder: ModelFolder, alias: str) -> None:
        """Record a model folder as a version of the registered model and give it an alias.

        The version loads with ``mlflow.pyfunc.load_model`` and serves with ``mlflow models serve``.
        """
        self._attempt(lambda: _register(folder, alias))

    def _start(self) -> None:
        mlflow.set_experiment(EXPERIMENT)
        nested = mlflow.active_run() is not None
        mlflow.start_run(run_name=self.run_name, nested=nested, log_system_metrics=True)

    def _attempt(self, action: Callable[[], Any]) -> None:
        """Do something with MLflow; if that fails, go on in the local store, at worst untracked."""
        if not self._working:
            return
        try:
            action()
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:200]
            if mlflow.get_tracking_uri() == LOCAL_STORE:
                self._working = False
                logger.warning("MLflow failed, this run goes on untracked: %s", reason)
                return
            logger.warning(
                "MLflow's server failed, this run goes on in %s: %s", LOCAL_STORE, reason
            )
            _move_to_local_store(self._open)
            self._attempt(action)

    def _replay(self) -> None:
        """Begin the run again, with all it has told so far."""
        self._attempt(self._start)
        params = dict(self._params)
        self._attempt(lambda: mlflow.log_params(params))
        for figures, step in list(self._metrics):
            self._attempt(functools.partial(mlflow.log_metrics, figures, step=step))


def _move_to_local_store(trackers: Sequence[Tracker]) -> None:
    while mlflow.active_run() is not None:
        # MLflow forgets the run before it tells the server, so this ends though the server is lost.
        with contextlib.suppress(Exception):
            mlflow.end_run("FAILED")
    mlflow.set_tracking_uri(LOCAL_STORE)
    for tracker in trackers:
        tracker._replay()


class TrackingCallback(TrainerCallback):
    """Hands the Trainer's reports to a tracker."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Record loss, answer loss, learning rate and the like at this step."""
        if state.is_world_process_zero and logs:
            figures = {key: value for key, value in logs.items() if isinstance(value, int | float)}
            self._tracker.log_metrics(figures, state.global_step)


def _register(folder: ModelFolder, alias: str) -> None:
    # Advice about signatures, which is taken below, and notices go straight to standard error.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={"folder": str(folder.path)},
            pip_requirements=["gpt2-the-joker[train]"],
            registered_model_name=REGISTERED_MODEL,
            signature=ModelSignature(
                inputs=Schema([ColSpec("string", "prompt")]),
                outputs=Schema([ColSpec("string", "question"), ColSpec("string", "answer")]),
                params=ParamSchema([ParamSpec("seed", "long", 0)]),
            ),
        )
        client = mlflow.MlflowClient()
        client.set_registered_model_alias(REGISTERED_MODEL, alias, info.registered_model_version)


def _flattened(params: Mapping[str, Any], prefix: str = "") -> Any:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
