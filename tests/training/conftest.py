"""A small prepared folder of our own jokes to train on, and copies of trained models."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.data.prepared import PreparedData

THINGS = ("kettle", "ladder", "teapot", "pillow", "candle", "bucket", "hammer", "window")
PLACES = ("kitchen", "garden", "school", "office", "cellar", "station")

Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def joke_file(tmp_path_factory: pytest.TempPathFactory, sample_jokes: list[Joke]) -> Path:
    """Return a CSV of some hundred jokes: the sample and variations on one more."""
    path = tmp_path_factory.mktemp("jokes") / "own.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Question", "Answer"])
        for joke in sample_jokes:
            writer.writerow([joke.question, joke.answer])
        for thing in THINGS:
            for place in PLACES:
                question = f"Why did the {thing} leave the {place}?"
                answer = f"A {thing} never feels at home near any other {place} {thing}."
                writer.writerow([question, answer])
    return path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, joke_file: Path) -> PreparedData:
    """Return the prepared folder of `joke_file`, split at random."""
    from joker.data.preparation import prepare
    from joker.data.sources import Source

    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare([Source.custom(joke_file)], out, split="random", seed=1)
    return PreparedData.open(out)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Command]:
    """Return a function that starts ``joker`` in a process of its own, in ``tmp_path``."""
    running: list[subprocess.Popen[str]] = []

    def run(
        *arguments: str | Path, module: str = "joker", **settings: str
    ) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        environment = {**kept, "OMP_NUM_THREADS": "1", **settings}
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def copy(tiny_folder: ModelFolder, tmp_path: Path) -> ModelFolder:
    shutil.copytree(tiny_folder.path, tmp_path / "model")
    return ModelFolder.open(tmp_path / "model")


@pytest.fixture
def graph_only(served_folder: ModelFolder, tmp_path: Path) -> ModelFolder:
    without = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(served_folder.path, tmp_path / "model", ignore=without)
    return ModelFolder.open(tmp_path / "model")
