import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder

pytestmark = [
    pytest.mark.integration,
    # MLflow's own code is not free of warnings.
    pytest.mark.filterwarnings("default"),
]

mlflow = pytest.importorskip("mlflow")

from joker.training.tracking import LOCAL_STORE, Tracker  # noqa: E402


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Return a real tracking server's address and a function that kills it."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    store = tmp_path / "server"
    store.mkdir()
    process = subprocess.Popen(
        command,
        cwd=store,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def kill() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    wait_for_port(port, process)
    yield f"http://127.0.0.1:{port}", kill
    kill()


def only_run(name: str) -> Any:
    # MLflow opens a store once for each address, so all tests here share the first one's file.
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    (found,) = [run for run in runs if run.info.run_name == name]
    return found


def test_a_run_is_recorded_in_sqlite_by_default(tiny_folder: ModelFolder) -> None:
    with Tracker("first") as tracker:
        tracker.log_params({"training": {"epochs": 3}})
        tracker.log_metrics({"loss": 2.5}, step=10)
        tracker.log_jokes([Joke("Why?", "Because.")])
        tracker.register(tiny_folder, "newest")
    assert Path("mlflow.db").is_file()
    run = only_run("first")
    assert run.data.params == {"training.epochs": "3"}
    assert run.data.metrics["loss"] == 2.5
    loaded = mlflow.pyfunc.load_model("models:/joker@newest")
    told = loaded.predict([{"prompt": "Why"}], params={"seed": 3})
    assert set(told[0]) == {"question", "answer"}
    assert told[0]["question"].startswith("Why")


def test_a_run_inside_another_is_its_child() -> None:
    with Tracker("parent"), Tracker("child"):
        pass
    parent, child = only_run("parent"), only_run("child")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_an_unreachable_server_does_not_lose_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with Tracker("stranded") as tracker:
        tracker.log_metrics({"loss": 1.5}, step=1)
    mlflow.set_tracking_uri(LOCAL_STORE)
    assert only_run("stranded").data.metrics["loss"] == 1.5


def test_a_server_that_goes_away_does_not_lose_the_run(
    server: tuple[str, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, kill = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with Tracker("outer") as parent, Tracker("inner") as child:
        parent.log_params({"layouts": 3})
        child.log_metrics({"loss": 2.0}, step=1)
        kill()
        child.log_metrics({"loss": 1.0}, step=2)
    mlflow.set_tracking_uri(LOCAL_STORE)
    run = only_run("inner")
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [(entry.step, entry.value) for entry in history] == [(1, 2.0), (2, 1.0)]
    assert run.data.tags["mlflow.parentRunId"] == only_run("outer").info.run_id
    assert only_run("outer").data.params == {"layouts": "3"}


def test_a_registered_model_is_served(tiny_folder: ModelFolder) -> None:
    with Tracker("served") as tracker:
        tracker.register(tiny_folder, "served")
    port = free_port()
    store = mlflow.MlflowClient().get_model_version_by_alias("joker", "served").source
    folder = Path(mlflow.artifacts.download_artifacts(store)).resolve()
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    process = subprocess.Popen(
        [*command, "--model-uri", str(folder), "--port", str(port)],
        env={**os.environ, "PATH": search},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for_port(port, process)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            data=json.dumps({"inputs": [{"prompt": "Why"}], "params": {"seed": 3}}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            (told,) = json.load(response)["predictions"]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert told["question"].startswith("Why")
    assert told["answer"]
