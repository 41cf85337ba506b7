import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.version import __version__

pytestmark = [
    pytest.mark.integration,
    # MLflow's own code is not free of warnings.
    pytest.mark.filterwarnings("default"),
]

mlflow = pytest.importorskip("mlflow")

from transformers.integrations import integration_utils  # noqa: E402

from joker.core.errors import (  # noqa: E402
    ConfigError,
    GenerationError,
    InputError,
    MissingDependencyError,
    StoppedError,
)
from joker.core.joke import Sampling  # noqa: E402
from joker.library import Joker  # noqa: E402
from joker.training import tracking  # noqa: E402
from joker.training.config import TrainingConfig  # noqa: E402
from joker.training.tracking import track  # noqa: E402

CONFIG = TrainingConfig(base="new:tiny")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
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
    monkeypatch.setattr(sys, "path", [*sys.path])  # a loaded model's source goes first there
    yield
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture(scope="module")
def registered(served_folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a version of the registered model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("registered"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with track("registered", CONFIG):
            tracking.register(served_folder, "shared")
        return str(Path(mlflow.artifacts.download_artifacts("models:/joker@shared")).resolve())


def link_packages(requirements: Iterable[str], site: Path) -> None:
    """Make a folder in which only some installed packages and what they require can be imported."""
    site.mkdir()
    pending = [Requirement(line) for line in requirements]
    linked: set[str] = set()
    while pending:
        wanted = pending.pop()
        if str(wanted) in linked:
            continue
        linked.add(str(wanted))
        try:
            package = distribution(wanted.name)
        except PackageNotFoundError:
            continue  # optional to a package that requires it for another platform
        for top in {file.parts[0] for file in package.files or () if file.parts[0] != ".."}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(package.locate_file(top))))
        extras = wanted.extras or {""}
        pending += [
            each
            for each in map(Requirement, package.requires or ())
            if not each.marker or any(each.marker.evaluate({"extra": extra}) for extra in extras)
        ]


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
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # several processes
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def kill() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}", kill
    finally:
        kill()


def only_run(name: str) -> Any:
    # MLflow opens a store once for each address, so all tests here share the first one's file.
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    (found,) = [run for run in runs if run.info.run_name == name]
    return found


def test_a_run_is_recorded_in_sqlite_by_default(tiny_folder: ModelFolder) -> None:
    Path("jokes.csv").write_text("Question,Answer\nWhy?,Because.\n", encoding="utf-8")
    with track("first", CONFIG):
        assert mlflow.get_tracking_uri() == "sqlite:///mlflow.db"
        tracking.log_params({"training": {"epochs": 3}})
        tracking.log_metrics({"loss": 2.5}, step=10)
        for step in (1, 2):
            row = {"step": step, "question": "Why?", "answer": "Because."}
            tracking.log_table([row], "sample_jokes.json")
        tracking.log_data(Path("jokes.csv"), "jokes-training", "training")
        tracking.register(tiny_folder, "newest")
    run = only_run("first")
    assert run.info.status == "FINISHED"
    assert run.data.params == {"training.epochs": "3"}
    assert run.data.metrics["loss"] == 2.5
    assert run.data.tags["joker.base"] == "new:tiny"
    assert run.data.tags["joker.version"] == __version__
    (told,) = run.inputs.dataset_inputs
    assert told.dataset.name == "jokes-training"
    assert [(tag.key, tag.value) for tag in told.tags] == [("mlflow.data.context", "training")]
    samples = mlflow.load_table("sample_jokes.json", run_ids=[run.info.run_id])
    assert samples["step"].tolist() == [1, 2]


def test_a_registered_model_takes_the_options_of_telling(registered: str) -> None:
    loaded = mlflow.pyfunc.load_model(registered)
    defaults = {
        option.name: option.default for option in loaded.metadata.get_params_schema().params
    }
    sampling = Sampling()
    assert defaults == {
        "seed": None,
        "candidates": None,
        "effort": None,
        "safe": True,
        "exclude_categories": [],
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "max_new_tokens": sampling.max_new_tokens,
        "stop": [],
    }
    greedy = {"temperature": 0.0, "candidates": 1}
    told = [loaded.predict([{"prompt": "Why"}], {**greedy, "seed": seed}) for seed in (3, 4)]
    assert told[0] == told[1]
    assert told[0][0]["question"].startswith("Why")
    (whole,) = told[0]
    first, _, _ = whole["answer"].partition(" ")
    assert loaded.predict([{"prompt": "Why"}], {**greedy, "stop": [" "]})[0]["answer"] == first


def test_data_sets_have_the_same_digest_if_and_only_if_their_jokes_are_the_same() -> None:
    path = Path("jokes.csv")
    jokes = [Joke("Why?", "Because."), Joke("What?", "Nothing.")]
    with track("digests", CONFIG):
        for name, data in {"all": jokes, "again": jokes, "one": jokes[:1], "none": []}.items():
            tracking.log_data(path, name, "training", data)
        for text in ("Question,Answer\n", "Question,Answer,Score\n"):
            path.write_text(text, encoding="utf-8")
            tracking.log_data(path, text.strip(), "training")
    inputs = only_run("digests").inputs.dataset_inputs
    digests = {each.dataset.name: each.dataset.digest for each in inputs}
    assert digests["all"] == digests.pop("again")
    assert len(digests) == len(set(digests.values())) == 5


TELL_A_JOKE = """
import sys
site, model = sys.argv[1:]
sys.path.insert(0, site)
import importlib.util, json, mlflow
assert importlib.util.find_spec("joker") is None
told = mlflow.pyfunc.load_model(model).predict([{"prompt": "Why"}], {"seed": 3})
import joker
print(json.dumps([told, joker.__file__]))
"""


@pytest.mark.parametrize("graph", [True, False], ids=["with a graph", "without a graph"])
def test_a_registered_model_needs_only_its_requirements_and_not_this_package(
    graph: bool, registered: str, tiny_folder: ModelFolder, tmp_path: Path
) -> None:
    if graph:
        model = Path(registered)
    else:
        with track("without a graph", CONFIG):
            tracking.register(tiny_folder, "plain")
        model = Path(mlflow.artifacts.download_artifacts("models:/joker@plain")).resolve()
    requirements = (model / "requirements.txt").read_text(encoding="utf-8").split()
    assert all("==" in line and "+" not in line for line in requirements)
    assert any(line.startswith("torch==") for line in requirements) is not graph
    assert not list((model / "code").rglob("*.bin"))
    site = tmp_path / "site"
    link_packages(requirements, site)
    # Isolated and without site-packages, where this package is installed.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", TELL_A_JOKE, site, model],
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (joke,), source = json.loads(done.stdout.splitlines()[-1])
    assert joke["question"].startswith("Why")
    assert joke["answer"]
    assert Path(source) == model / "code" / "joker" / "__init__.py"


def test_a_registered_model_withholds_what_it_is_asked_to(
    registered: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("[dark offensive]\nwhy\n[political topic]\nwhat\n", encoding="utf-8")
    monkeypatch.setenv("JOKER_MODERATION_LIST", str(listed))
    loaded = mlflow.pyfunc.load_model(registered)
    for prompt, option, allowed in (
        ("Why", {"safe": True}, {"safe": False}),
        ("What", {"exclude_categories": ["political"]}, {"exclude_categories": []}),
    ):
        with pytest.raises(GenerationError, match="withholds"):
            loaded.predict([{"prompt": prompt}], {"effort": 1, **option})
        (told,) = loaded.predict([{"prompt": prompt}], {"effort": 1, **allowed})
        assert told["question"].startswith(prompt)
    with pytest.raises(InputError, match="only one of them"):
        loaded.predict([{"prompt": "Why"}], {"effort": 1, "candidates": 4})


def test_a_registered_model_tells_what_joker_tells(
    served_folder: ModelFolder, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOKER_CANDIDATES", "1")
    loaded = mlflow.pyfunc.load_model(registered)
    with Joker(served_folder.path) as teller:
        for seed in range(5):
            (joke,) = teller.tell("Why", seed=seed)
            told = loaded.predict([{"prompt": "Why"}], {"seed": seed})
            assert told == [{"question": joke.question, "answer": joke.answer}]
    fresh = [loaded.predict([{"prompt": "Why"}]) for _ in range(10)]
    assert any(told != fresh[0] for told in fresh)


def test_a_run_inside_another_is_its_child() -> None:
    with track("parent", CONFIG), track("child", CONFIG):
        pass
    parent, child = only_run("parent"), only_run("child")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "KILLED"),
        (StoppedError("stopped after 3 of 9 steps"), "KILLED"),
        (RuntimeError("a defect"), "FAILED"),
    ],
)
def test_a_run_that_ends_early_says_whether_it_was_stopped_or_failed(
    error: BaseException, status: str
) -> None:
    name = f"early-{type(error).__name__}"
    with pytest.raises(type(error)), track(name, CONFIG):
        raise error
    assert only_run(name).info.status == status
    assert mlflow.active_run() is None


def test_an_unreachable_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError) as raised, track("stranded", CONFIG):
        pytest.fail("the training began")
    said = str(raised.value)
    assert address in said
    assert "MLFLOW_TRACKING_URI" in said
    assert "--report-to none" in said
    assert "\n" not in said


def test_a_server_that_goes_away_does_not_end_the_training(
    server: tuple[str, Callable[[], None]],
    monkeypatch: pytest.MonkeyPatch,
    tiny_folder: ModelFolder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address, kill = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with track("outer", CONFIG), track("inner", CONFIG):
        tracking.log_metrics({"loss": 2.0}, step=1)
        kill()
        tracking.log_metrics({"loss": 1.0}, step=2)
        tracking.register(tiny_folder, "lost")
    assert caplog.text.count("MLflow failed, training continues") == 4
    assert mlflow.active_run() is None


def test_without_mlflow_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with track("silent", TrainingConfig(report_to="none")):
        assert mlflow.active_run() is None
        tracking.log_metrics({"loss": 2.0}, step=1)


def test_report_to_names_transformers_own_callbacks(tmp_path: Path) -> None:
    kinds = [type(each).__name__ for each in tracking.reporters(CONFIG, tmp_path)]
    assert kinds == ["MLflowCallback"]
    assert tracking.reporters(TrainingConfig(report_to="none"), tmp_path) == []
    with pytest.raises(ConfigError, match="'report_to' is 'mlflow, tensorbord'"):
        tracking.reporters(TrainingConfig(report_to="mlflow, tensorbord"), tmp_path)


def test_a_reporter_without_its_package_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    with pytest.raises(MissingDependencyError, match="wandb"):
        tracking.reporters(TrainingConfig(report_to="wandb"), tmp_path)


def test_a_registered_model_is_served(registered: str) -> None:
    port = free_port()
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    process = subprocess.Popen(
        [*command, "--model-uri", registered, "--port", str(port)],
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
