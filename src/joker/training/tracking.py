"""MLflow: a run's tags, data, settings, samples and model, in addition to Transformers' reports.

Runs are recorded at `MLFLOW_TRACKING_URI`, by default in a SQLite file in the working directory.
Transformers' own `MLflowCallback` joins the run that is open here and reports losses and its
arguments. If the server cannot be reached, training does not start; if it becomes unreachable
later, training continues with a warning.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import mlflow
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, Schema
from mlflow.types import ParamSpec as Option
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT
from transformers import TrainerCallback
from transformers.integrations import integration_utils
from transformers.utils.generic import flatten_dict

from joker.core.errors import ConfigError, MissingDependencyError, StoppedError, first_line
from joker.core.joke import Joke
from joker.core.model_folder import BUNDLED, ModelFolder
from joker.generation.request import GenerationRequest
from joker.training.config import TrainingConfig
from joker.version import __version__

mpl.use("Agg")

import matplotlib.pyplot as plt

LOCAL_STORE = "sqlite:///mlflow.db"
EXPERIMENT = "joker"
REGISTERED_MODEL = "joker"

_SERVING = ("httpx2", "numpy", "openvino-genai", "pydantic", "pydantic-settings", "tokenizers")
"""Packages that `joker.library` needs."""
_EXPORTING = ("nncf", "optimum-intel", "torch", "transformers")
"""Packages that it needs besides to make the graph that a folder lacks."""

_LONGEST_DIGEST = 36
"""Most characters of a data set's digest in MLflow."""

_LONGEST_REASON = 200

Arguments = ParamSpec("Arguments")

logger = logging.getLogger(__name__)

_callbacks_for: Any = integration_utils.get_reporting_integration_callbacks  # untyped


@contextlib.contextmanager
def track(run_name: str, config: TrainingConfig) -> Iterator[None]:
    """Open a run in MLflow if ``report_to`` names it; within another run, a child run.

    Of several processes only the first opens one. The run ends as FINISHED, as KILLED if a signal
    stopped it, or as FAILED.

    Args:
        run_name: Name of the run.
        config: The training settings.

    Raises:
        ConfigError: If MLflow cannot be reached.
    """
    if "mlflow" not in config.reports or os.environ.get("RANK", "0") != "0":
        yield
        return
    # By default MLflow retries seven times with growing pauses, which would delay training by
    # minutes at each call.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    nested = mlflow.active_run() is not None
    uri = os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_STORE
    commit = _commit()
    try:
        if not nested:
            mlflow.set_tracking_uri(uri)
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
        mlflow.start_run(
            run_name=run_name,
            nested=nested,
            log_system_metrics=True,
            tags={
                "joker.version": __version__,
                "joker.base": config.base,
                **({MLFLOW_GIT_COMMIT: commit} if commit else {}),
            },
        )
    except Exception as error:  # MLflow's own errors, the database's, the network's
        raise ConfigError(
            f"MLflow cannot be reached at {uri}: start its server, set MLFLOW_TRACKING_URI to "
            f"another address, unset it to record in {LOCAL_STORE} here, or train with "
            f"--report-to none ({first_line(error)[:_LONGEST_REASON]})"
        ) from error
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (KeyboardInterrupt, StoppedError):
        status = "KILLED"
        raise
    finally:
        _end(status)


def reporters(config: TrainingConfig, logs: Path) -> list[TrainerCallback]:
    """Return Transformers' own callbacks for the trackers in ``report_to``.

    Args:
        config: The training settings.
        logs: The folder for TensorBoard's files if TENSORBOARD_LOGGING_DIR is not set.

    Raises:
        ConfigError: If Transformers does not know a tracker.
        MissingDependencyError: If a tracker's package is not installed.
    """
    os.environ.setdefault("WANDB_PROJECT", EXPERIMENT)
    try:
        kinds = _callbacks_for(config.reports)
        made: list[Any] = [kind() for kind in kinds]
    except ValueError as error:
        raise ConfigError(f"setting 'report_to' is {config.report_to!r}: {error}") from error
    except (RuntimeError, ImportError) as error:  # if its package is missing
        raise MissingDependencyError(
            f"setting 'report_to' is {config.report_to!r}: {error}"
        ) from error
    for callback in made:
        if (
            isinstance(callback, integration_utils.TensorBoardCallback)
            and callback.logging_dir is None
        ):
            callback.logging_dir = str(logs)  # the default is among the checkpoints
    return made


def _in_run(report: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Skip a report if no run is open, and warn if MLflow fails."""

    @functools.wraps(report)
    def attempt(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        if mlflow.active_run() is None:
            return
        try:
            report(*arguments, **options)
        except Exception as error:
            logger.warning(
                "MLflow failed, training continues: %s", first_line(error)[:_LONGEST_REASON]
            )

    return attempt


@_in_run
def _end(status: str) -> None:
    try:
        mlflow.flush_async_logging()
    finally:
        mlflow.end_run(status)


@_in_run
def log_params(params: Mapping[str, Any]) -> None:
    """Record settings; names of nested ones are joined with dots."""
    mlflow.log_params(flatten_dict(dict(params)))


@_in_run
def log_metrics(metrics: Mapping[str, float], step: int = 0) -> None:
    """Record metrics at an optimizer step."""
    mlflow.log_metrics({key: float(value) for key, value in metrics.items()}, step=step)


@_in_run
def log_table(rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """Add rows with the same columns to a table.

    Args:
        rows: One mapping for each row.
        name: The table's name, which ends with ``.json``.
    """
    if rows:
        mlflow.log_table({key: [row[key] for row in rows] for key in rows[0]}, name)


@_in_run
def log_file(path: Path) -> None:
    """Record a file, such as a plot."""
    mlflow.log_artifact(str(path))


@_in_run
def log_data(path: Path, name: str, context: str, jokes: Iterable[Joke] | None = None) -> None:
    """Record jokes as a dataset that is an input of the run.

    Args:
        path: The file or folder that contains them.
        name: Name of the dataset.
        context: What the run uses them for, such as ``training``.
        jokes: The jokes that it uses, from which the digest is computed; by default the digest is
            that of the whole file.
    """
    digest = hashlib.sha256(path.read_bytes() if jokes is None else b"")
    for joke in jokes or ():
        digest.update(json.dumps([joke.question, joke.answer]).encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its registry knows local files twice
        source = resolve_dataset_source(str(path.resolve()))
    dataset = MetaDataset(
        source,
        name=name,
        digest=digest.hexdigest()[:_LONGEST_DIGEST],
        schema=Schema([ColSpec("string", "question"), ColSpec("string", "answer")]),
    )
    mlflow.log_input(dataset, context=context)


@_in_run
def register(folder: ModelFolder, alias: str) -> None:
    """Record a model folder as a version of the registered model and give it an alias.

    The version loads with ``mlflow.pyfunc.load_model`` and serves with ``mlflow models serve``. It
    contains this package's source, so the package itself need not be installed there.
    """
    # Advice about signatures, which is taken below, and notices go straight to standard error.
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        _source() as source,
    ):
        warnings.simplefilter("ignore")
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).parents[1] / "pyfunc.py"),
            artifacts={"folder": str(folder.path)},
            code_paths=[str(source)],
            pip_requirements=_requirements(folder),
            registered_model_name=REGISTERED_MODEL,
            signature=ModelSignature(
                inputs=Schema([ColSpec("string", "prompt")]),
                outputs=Schema([ColSpec("string", "question"), ColSpec("string", "answer")]),
                params=ParamSchema(_telling_options()),
            ),
        )
        client = mlflow.MlflowClient()
        client.set_registered_model_alias(REGISTERED_MODEL, alias, info.registered_model_version)


def loss_plot(history: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Plot training and validation losses over optimizer steps to a PNG and return its path.

    Args:
        history: The Trainer's reports, with ``step`` and any losses in nats per token.
        path: The file to write.
    """
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    lines = (
        ("loss", "training, all tokens", None),
        ("answer_loss", "training, answers", None),
        ("eval_loss", "validation, all tokens", "o"),
    )
    for key, label, marker in lines:
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker=marker)
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def comparison_plot(metrics: Mapping[str, Mapping[str, float]], path: Path) -> Path:
    """Plot each template's bits per byte and legacy perplexity to a PNG and return its path.

    Args:
        metrics: Metrics by template.
        path: The file to write.
    """
    labels = list(metrics)
    figure, panes = plt.subplots(1, 3, figsize=(14, 0.5 * len(labels) + 2), layout="constrained")
    shown = (
        ("validation_bits_per_byte", "bits per byte, validation (picks the winner)"),
        ("bits_per_byte", "bits per byte, test (compares fairly)"),
        ("legacy_perplexity", "legacy perplexity, test (not comparable)"),
    )
    for pane, (key, title) in zip(panes, shown, strict=True):
        bars = pane.barh(labels, [metrics[label].get(key, 0.0) for label in labels])
        pane.bar_label(bars, fmt="%.3f", padding=3)
        pane.set_title(title)
        pane.invert_yaxis()
        pane.margins(x=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


@contextlib.contextmanager
def _source() -> Iterator[Path]:
    """Yield a copy of this package without the bundled model, which takes up 100 MB."""
    package = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / package.name
        without = shutil.ignore_patterns("__pycache__", BUNDLED.parent.name)
        yield Path(shutil.copytree(package, copy, ignore=without))


def _requirements(folder: ModelFolder) -> list[str]:
    """Return what pip must install to serve a model folder, in the versions that run here."""
    names = _SERVING if folder.has_openvino else (*_SERVING, *_EXPORTING)
    # A local label such as PyTorch's +cpu is unknown to the package index.
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def _telling_options() -> list[Option]:
    """Return the parameters of `joker.pyfunc`, which are those of the API."""
    kinds = {bool: "boolean", int: "long", float: "double"}
    request = GenerationRequest()
    wanted = {"safe": request.safe, "exclude_categories": request.exclude_categories}
    return [
        *(Option(name, "long", None) for name in ("seed", "candidates", "effort")),
        *(
            Option(name, "string", list(default), (-1,))
            if isinstance(default, tuple)
            else Option(name, kinds[type(default)], default)
            for name, default in (wanted | asdict(request.sampling)).items()
        ),
    ]


def _commit() -> str | None:
    """Return the git commit of the running code if it is in a repository."""
    here = Path(__file__)
    tracked = ("git", "-C", str(here.parent), "ls-files", "--error-unmatch", here.name)
    head = ("git", "-C", str(here.parent), "rev-parse", "HEAD")
    try:
        subprocess.run(tracked, check=True, capture_output=True)
        return subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
