"""The files of deploy/ name only files, packages, commands and settings that exist."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import typer
import yaml

from joker.cli import app
from joker.settings import Settings
from tests.deploy.dockerfile import REPOSITORY, STAGES

DEPLOY = REPOSITORY / "deploy"
TARGETS = ("web", "web-maintained", "worker", "mlflow")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = {
    line.partition("==")[0].lower()
    for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
}
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))
# Read by Compose itself: what it publishes, and the folders of secrets and models.
OF_COMPOSE = {
    *("JOKER_WEB_PORT", "JOKER_REDIS_ADDRESS", "JOKER_SECRETS"),
    *("JOKER_MODELS", "JOKER_MODEL_NAME"),
}
TEXTS = {
    str(path.relative_to(DEPLOY)): path.read_text(encoding="utf-8")
    for path in sorted(DEPLOY.rglob("*"))
    if path.is_file() and not {"secrets", "__pycache__", ".env"} & set(path.parts)
}
each_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)


def lineage(stage: str) -> list[str]:
    """Return a stage and those that it is built on."""
    return [stage, *lineage(STAGES[stage].base)] if stage in STAGES else []


def files_of(stage: str) -> set[str]:
    """Return the absolute paths that a stage and its bases copy or create."""
    found = set()
    for name in lineage(stage):
        for copy in STAGES[name].arguments("COPY"):
            *sources, target = copy.split()
            # A folder takes in each file under its own name.
            files = [target + source.rpartition("/")[2] for source in sources]
            found |= set(files) if target.endswith("/") else {target}
        for run in STAGES[name].arguments("RUN"):
            found |= set(re.findall(r"(?:venv|mkdir)\s(?:\S*\s)*?(/\S+)", run))
    return found


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = set()
    for stage in STAGES.values():
        for arguments in stage.arguments("COPY"):
            *sources, _ = arguments.split()
            if sources[0].startswith("--from="):
                assert set(sources[1:]) <= files_of(sources[0].removeprefix("--from="))
            else:
                copied |= set(sources)
    assert copied == allowed
    assert [source for source in copied if not (REPOSITORY / source).exists()] == []


def test_packages_that_are_installed_are_known_and_have_a_version() -> None:
    runs = [run for stage in STAGES.values() for run in stage.arguments("RUN")]
    extras = {extra for run in runs for extra in re.findall(r"\.\[(\w+)\]", run)}
    assert extras
    assert extras <= set(PROJECT["optional-dependencies"])
    for run in runs:
        for action, arguments in re.findall(r"pip.*? (install|uninstall) (.*?)(?:&&|$)", run):
            names = re.sub(r"--constraint \S+|--yes", "", arguments).replace('"', "").split()
            packages = [name for name in names if not name.strip("'").startswith(".")]
            assert all(
                name in PINNED or (action == "install" and "==" in name) for name in packages
            )


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_starts_a_command_that_exists(target: str) -> None:
    program, *arguments = STAGES[target].command
    if program == "joker":
        assert program in PROJECT["scripts"]
        assert arguments[0] in typer.main.get_group(app).commands
    elif program == "uvicorn":
        assert any(name.startswith("uvicorn") for name in PROJECT["dependencies"])
        module, _, name = next(each for each in arguments if ":" in each).partition(":")
        assert callable(getattr(import_module(module), name))
        module, _, name = arguments[arguments.index("--http") + 1].partition(":")
        assert issubclass(getattr(import_module(module), name), asyncio.Protocol)
    else:
        # Unit's own image brings its server; MLflow's address is put together by a shell.
        assert program in ("unitd", "sh")
        assert program == "unitd" or "exec mlflow server" in arguments[-1]


@each_text
def test_commands_that_are_named_exist(text: str) -> None:
    named = set(re.findall(r"['`]joker (\w+)", text))
    assert named <= set(typer.main.get_group(app).commands)
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= set(targets)


@each_text
def test_settings_that_are_named_exist(text: str) -> None:
    known = {f"JOKER_{name.upper()}" for name in Settings.model_fields} | {"JOKER_SECRETS_DIR"}
    assert set(re.findall(r"JOKER_[A-Z_]+[A-Z]", text)) <= known | OF_COMPOSE


@pytest.mark.parametrize("path", ["docker-compose.yml", "docker-compose.maintained.yml"])
def test_compose_names_images_after_targets_and_uses_paths_that_they_hold(path: str) -> None:
    services = yaml.safe_load((DEPLOY / path).read_text(encoding="utf-8"))["services"]
    built = [service for service in services.values() if "build" in service]
    assert built
    for service in built:
        target = service["build"]["target"]
        assert service["image"] == f"joker-{target}"
        for program in re.findall(r"/opt/[^/']+", str(service.get("healthcheck"))):
            assert program in files_of(target)


def test_folders_in_memory_belong_to_the_user_of_their_image() -> None:
    (user,) = [run for run in STAGES["runtime"].arguments("RUN") if "useradd" in run]
    number = re.search(r"groupadd .*--gid (\d+) joker .*useradd .*--uid \1 --gid \1 ", user)
    assert number is not None
    for name in ("worker", "mlflow"):
        assert STAGES[name].arguments("USER") == ["joker"]
        (folder,) = COMPOSE["services"][name]["tmpfs"]
        assert f"uid={number[1]}" in folder
    assert STAGES["web"].arguments("USER") == ["unit"]
    assert f"groupmod --gid {number[1]} unit && usermod --uid {number[1]} unit" in STAGES[
        "web"
    ].arguments("RUN")
    owned = [folder for folder in COMPOSE["services"]["web"]["tmpfs"] if "uid=" in folder]
    assert len(owned) == 3
    assert all(f":uid={number[1]},gid={number[1]}," in folder for folder in owned)
    pods = [(DEPLOY / "kubernetes" / f"{name}.yaml").read_text() for name in ("web", "worker")]
    for pod in pods:
        assert f"runAsUser: {number[1]}" in pod
        assert f"runAsGroup: {number[1]}" in pod


@pytest.mark.parametrize("target", TARGETS)
def test_no_image_runs_as_root(target: str) -> None:
    names = [name for name, _ in STAGES[target].instructions]
    assert names.index("USER") < names.index("CMD")
    assert STAGES[target].arguments("USER")[-1] in ("unit", "joker")


def test_no_image_holds_a_secret() -> None:
    kept = [
        arguments.lower()
        for stage in STAGES.values()
        for name in ("ARG", "ENV", "COPY")
        for arguments in stage.arguments(name)
    ]
    assert not [text for text in kept if re.search("password|secret|key", text)]


def here(words: list[str]) -> list[str]:
    """Return a command of an image with the files and the Python of this repository."""
    files = {word: str(DEPLOY / Path(word).name) for word in words if "/etc/joker/" in word}
    return [files.get(word, word) for word in words]


def start_of(target: str) -> list[str]:
    """Return what starts an image's command after process 1."""
    (entry, *_) = [e for name in lineage(target) for e in STAGES[name].arguments("ENTRYPOINT")]
    first, dashes, *words = json.loads(entry)
    assert (first, dashes) == ("tini", "--")
    return here(words)


@pytest.mark.integration
def test_metrics_of_an_earlier_start_are_deleted(tmp_path: Path) -> None:
    for name in ("counter_7.db", "kept"):
        (tmp_path / name).touch()
    command = [*start_of("web-maintained"), "echo", "started with", "its  arguments"]
    for folder in (str(tmp_path), ""):
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": folder}
        started = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert started.stdout == b"started with its  arguments\n"
        assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.integration
def test_all_that_the_web_server_logs_is_json() -> None:
    """Its processes as well as the one that starts them."""
    program, *arguments = here(STAGES["web-maintained"].command)
    arguments[arguments.index("--port") + 1] = "0"
    command = [sys.executable, "-m", program, *arguments]
    environment = os.environ | {"JOKER_BROKER": "redis://127.0.0.1:1/0", "JOKER_POOL_SIZE": "0"}
    messages = []
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        patience = threading.Timer(120, process.kill)
        patience.start()
        try:
            for line in process.stderr:
                messages.append(json.loads(line)["message"])
                if messages.count("Application startup complete.") == 2:
                    process.terminate()
        finally:
            patience.cancel()
            process.terminate()
    assert messages.count("Application startup complete.") == 2
    assert any("parent process" in message for message in messages)


@pytest.mark.integration
@pytest.mark.parametrize("target", ["web-maintained", "worker"])
def test_a_stop_in_the_first_second_ends_process_1(target: str) -> None:
    """In a process namespace of its own, as in a container: the first process ignores signals."""
    isolate = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
    programs = shutil.which("tini"), shutil.which("unshare")
    if not all(programs) or subprocess.run([*isolate, "true"], check=False).returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs tini and process namespaces")
    program, *arguments = here(STAGES[target].command)
    start = ["tini", "--", *start_of(target)]
    command = [*isolate, *start, sys.executable, "-m", program, *arguments]
    environment = os.environ | {"JOKER_BROKER": "redis://127.0.0.1:1/0"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        time.sleep(0.2)
        (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        assert process.wait(10) in (0, 143)
