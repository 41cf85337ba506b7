from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from joker.compose import open_queue, open_store
from joker.settings import Settings, load_settings
from joker.web.app import create_app
from tests.deploy.dockerfile import STAGES
from tests.docs.pages import blocks

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
FILES: dict[str, dict[str, Any]] = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(DEPLOY.glob("docker-compose*.yml"))
}
COMPOSE = FILES["docker-compose.yml"]
MAINTAINED = FILES["docker-compose.maintained.yml"]
# Of overrides, those services that are not in the main file and so must be whole.
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"] | {
    name: service
    for file in FILES.values()
    for name, service in file["services"].items()
    if name not in COMPOSE["services"]
}
SECRETS = {
    name: secret for file in FILES.values() for name, secret in file.get("secrets", {}).items()
}
VOLUMES = {name for file in FILES.values() for name in file.get("volumes", {})}
NETWORKS = {name for file in FILES.values() for name in file.get("networks", {})}
UNIT: dict[str, Any] = json.loads((DEPLOY / "unit.json").read_text(encoding="utf-8"))
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


@pytest.mark.parametrize("name", FILES)
def test_files_keep_the_compose_specification(name: str) -> None:
    checker = [sys.executable, "-m", "check_jsonschema"]
    subprocess.run([*checker, "--builtin-schema", "vendor.compose-spec", DEPLOY / name], check=True)


@each_service
def test_a_service_is_confined_and_comes_back(service: dict[str, Any]) -> None:
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    # Our images name a user of their own; others run as one that is given here.
    assert ("build" in service) != (service.get("user", "0").split(":")[0] not in ("0", "root"))


@each_service
def test_an_image_is_built_here_or_named_by_version(service: dict[str, Any]) -> None:
    build = service.get("build")
    if build is None:
        assert re.search(r":v?\d", service["image"])
        return
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert build["target"] in STAGES


def test_every_stage_starts_from_an_image_of_one_version() -> None:
    for stage in STAGES.values():
        assert stage.base in STAGES or re.search(r":\d", stage.base)


def test_the_maintained_server_changes_its_image_and_how_long_clients_may_wait() -> None:
    assert {name: set(changes) for name, changes in MAINTAINED["services"].items()} == {
        "web": {"image", "build", "environment", "init"}
    }
    assert "FORWARDED_ALLOW_IPS" in SERVICES["web"]["environment"]
    command = STAGES[MAINTAINED["services"]["web"]["build"]["target"]].command
    listener = next(iter(UNIT["listeners"])).removeprefix("*:")
    assert command[command.index("--port") + 1] == listener
    assert (
        int(command[command.index("--workers") + 1]) == UNIT["applications"]["joker"]["processes"]
    )


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-compose.maintained.yml"])
def test_both_web_servers_keep_their_jokes_in_one_volume_that_they_may_write(file: str) -> None:
    stage = STAGES[FILES[file]["services"]["web"]["build"]["target"]]
    (folder,) = (Path(volume.partition(":")[2]) for volume in SERVICES["web"]["volumes"])
    (user,) = stage.arguments("USER")
    assert any(f"XDG_DATA_HOME={folder.parent}" in one for one in stage.arguments("ENV"))
    assert f"install --directory --owner={user} --group={user} {folder}" in stage.arguments("RUN")


def test_what_is_referred_to_exists() -> None:
    for service in (s for file in FILES.values() for s in file["services"].values()):
        assert set(service.get("secrets", [])) <= set(SECRETS)
        assert set(service.get("networks", [])) <= NETWORKS
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in VOLUMES or source.startswith("${") or (DEPLOY / source).is_file()


def test_old_engines_can_run_it() -> None:
    """``start_interval`` needs Docker Engine 25."""
    for service in SERVICES.values():
        assert set(service["healthcheck"]) == {
            "test",
            "interval",
            "timeout",
            "retries",
            "start_period",
        }


def test_environment_holds_no_secret() -> None:
    for service in SERVICES.values():
        assert not [
            name
            for name, value in service.get("environment", {}).items()
            if "PASSWORD" in name and not name.endswith("_FILE")
        ]


def test_secrets_are_drawn_by_make_once(tmp_path: Path) -> None:
    run = ["make", "--silent", f"--file={REPOSITORY / 'Makefile'}", "secrets"]
    subprocess.run(run, cwd=tmp_path, check=True)
    made = {path.name: path.read_text() for path in (tmp_path / "deploy" / "secrets").iterdir()}
    assert set(made) == set(SECRETS)
    # The key of a remote engine is not ours to draw.
    assert made["joker_engine_api_key"] == ""
    drawn = {
        name: secret
        for name, secret in made.items()
        if name not in ("joker_database", "joker_engine_api_key")
    }
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in drawn.values())
    assert len(set(drawn.values())) == len(drawn)
    database = next(
        name
        for name, service in SERVICES.items()
        if "database_password" in service.get("secrets", [])
    )
    assert made["joker_database"] == (
        f"postgresql+psycopg://joker:{drawn['database_password']}@{database}/joker"
    )
    assert (tmp_path / "deploy" / "secrets").stat().st_mode & 0o077 == 0
    (tmp_path / "deploy" / "secrets" / "joker_engine_api_key").write_text("given")
    made["joker_engine_api_key"] = "given"
    subprocess.run(run, cwd=tmp_path, check=True)
    assert made == {p.name: p.read_text() for p in (tmp_path / "deploy" / "secrets").iterdir()}
    (line,) = (tmp_path / "deploy" / ".env").read_text().splitlines()
    assert line == "JOKER_SECRETS=./secrets"
    for path in ("deploy/secrets/joker_broker_password", "deploy/.env"):
        subprocess.run(["git", "check-ignore", "--quiet", path], cwd=REPOSITORY, check=True)


def test_without_secrets_compose_refuses_before_it_builds_and_says_what_to_do() -> None:
    """A variable that must have a value is an error while the file is read."""
    for name, secret in SECRETS.items():
        assert (
            secret["file"] == f'${{JOKER_SECRETS:?has no value. Run "make secrets" first}}/{name}'
        )


def test_what_nginx_unit_cannot_end_is_short() -> None:
    """It does not say that a client has left, and cuts requests that wait when it stops."""
    under_unit, maintained = (
        {
            name: int(value.partition("-")[2][:-1])
            for name, value in each.items()
            if name in ("JOKER_MAX_WAIT_SECONDS", "JOKER_DEADLINE_SECONDS")
        }
        for each in (SERVICES["web"]["environment"], MAINTAINED["services"]["web"]["environment"])
    )
    assert under_unit.keys() == maintained.keys()
    for name, seconds in maintained.items():
        assert seconds == Settings.model_fields[name.removeprefix("JOKER_").lower()].default
        assert under_unit[name] < seconds


def test_a_model_of_ones_own_is_the_workers_and_the_web_servers() -> None:
    """Web servers tell its picked jokes and describe it."""
    services = FILES["docker-compose.own-model.yml"]["services"]
    assert set(services) == {"web", "worker"}
    for service in services.values():
        (volume,) = service["volumes"]
        folder, _, name = service["environment"]["JOKER_MODEL"].rpartition("/")
        assert volume.endswith(f":{folder}:ro")
        # Jokes bear the name.
        assert name.startswith("${JOKER_MODEL_NAME:?")


def test_workers_get_out_to_a_remote_engine_and_have_its_key() -> None:
    remote = FILES["docker-compose.remote-engine.yml"]
    settings = [remote["services"][name]["environment"] for name in ("web", "worker")]
    assert settings[0] == settings[1]
    assert settings[0].keys() == {"JOKER_ENGINE_URL", "JOKER_ENGINE_MODEL"}
    worker = remote["services"]["worker"]
    assert [n for n in worker["networks"] if remote["networks"].get(n, {}) is None] == ["engine"]
    assert worker["secrets"] == ["joker_engine_api_key"]


def test_redis_is_published_only_where_workers_of_other_machines_need_it() -> None:
    remote = FILES["docker-compose.remote-workers.yml"]
    (port,) = remote["services"]["redis"]["ports"]
    assert re.fullmatch(r"\$\{JOKER_REDIS_ADDRESS:\?.*\}:6379:6379", port)
    open_networks = [
        n for n in remote["services"]["redis"]["networks"] if n not in COMPOSE["networks"]
    ]
    assert [remote["networks"][name] for name in open_networks] == [None]


def test_prometheus_scrapes_services_that_exist() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    for job in config["scrape_configs"]:
        for entry in job["dns_sd_configs"]:
            assert set(entry["names"]) <= set(SERVICES)


def test_only_the_page_is_published_and_redis_has_no_way_out() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"web", "mlflow", "prometheus"}
    assert published["mlflow"] == ["127.0.0.1:5000:5000"]
    assert published["prometheus"] == ["127.0.0.1:9090:9090"]
    assert SERVICES["redis"]["networks"] == ["queue"]
    assert COMPOSE["networks"]["queue"] == {"internal": True}


def test_the_page_is_published_from_where_it_listens_and_its_probe_is_answered() -> None:
    (port,) = SERVICES["web"]["ports"]
    assert port == "${JOKER_WEB_PORT:-80}:8080"
    assert list(UNIT["listeners"]) == ["*:8080"]
    settings = load_settings(broker="redis://127.0.0.1:1/0")
    app = create_app(open_queue(settings), open_store(settings), settings)
    paths = app.openapi()["paths"]
    (probe,) = re.findall(r"http://127.0.0.1:8080(/[^']*)", str(SERVICES["web"]["healthcheck"]))
    assert probe in paths


def test_a_stop_outlasts_the_deadline_of_a_job() -> None:
    deadline = Settings.model_fields["deadline_seconds"].default
    for name in ("web", "worker"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > deadline
    seconds = STAGES["web-maintained"].command[-1]
    assert deadline < int(seconds) < int(SERVICES["web"]["stop_grace_period"].removesuffix("s"))


def test_workers_run_as_many_jobs_at_a_time_as_the_setting_says() -> None:
    """Few jobs would leave most of the engine's batch empty."""
    jobs = Settings.model_fields["concurrency"].default
    assert (
        SERVICES["worker"]["environment"]["JOKER_CONCURRENCY"] == f"${{JOKER_CONCURRENCY-{jobs}}}"
    )


def test_the_worker_beats_where_its_probe_looks() -> None:
    worker = SERVICES["worker"]
    heartbeat = worker["environment"]["JOKER_HEARTBEAT"]
    assert heartbeat in worker["healthcheck"]["test"][1]
    assert heartbeat.startswith(worker["tmpfs"][0].split(":")[0])


def test_the_password_is_the_file_that_the_application_reads() -> None:
    assert SERVICES["web"]["environment"]["JOKER_SECRETS_DIR"] == "/run/secrets"
    assert "joker_broker_password" in COMPOSE["secrets"]
    assert "broker_password" in Settings.model_fields


@pytest.mark.integration
def test_redis_starts_as_the_compose_file_starts_it(tmp_path: Path) -> None:
    """Its command is run by a shell, with paths of this machine in place of the container's."""
    if shutil.which("redis-server") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    import redis
    from redis.exceptions import AuthenticationError, OutOfMemoryError

    command = SERVICES["redis"]["command"][2].replace("$$", "$")
    (tmp_path / "secret").write_text("of-the-test")
    script = command.replace("/run/secrets/joker_broker_password", str(tmp_path / "secret"))
    script = script.replace("/etc/redis.conf", str(DEPLOY / "kubernetes" / "redis.conf"))
    script = script.replace("requirepass", f"unixsocket {tmp_path}/socket\nport 0\nrequirepass")
    process = subprocess.Popen(["sh", "-c", script], cwd=tmp_path, stdout=subprocess.DEVNULL)
    address = f"unix://{tmp_path}/socket"
    try:
        with redis.Redis.from_url(address, password="of-the-test") as client:
            until = time.monotonic() + 60
            while not (tmp_path / "socket").exists():
                assert time.monotonic() < until
                time.sleep(0.05)
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            client.config_set("maxmemory", 1)
            with pytest.raises(OutOfMemoryError):
                client.set("one", "more")
        with redis.Redis.from_url(address) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
        assert "of-the-test" not in Path(f"/proc/{process.pid}/cmdline").read_text()
        assert list(tmp_path.glob("appendonlydir/*")), "the working folder holds the files"
    finally:
        process.terminate()
        process.wait(60)


PASSED = set(re.findall(r"\$\{(\w+)[:-]", " ".join(map(json.dumps, FILES.values()))))
# Compose sets them to what its services need.
SET_HERE = {"JOKER_BROKER", "JOKER_DATABASE", "JOKER_MODEL", "JOKER_SECRETS_DIR"}
OF_CONTAINERS = [
    block
    for path in sorted([REPOSITORY / "README.md", *REPOSITORY.glob("docs/**/*.md")])
    for block in blocks(path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8"))
    if block.excuse == "containers"
]
ADVICE = {
    **{
        name: (DEPLOY / name).read_text(encoding="utf-8")
        for name in ("README.md", "prometheus/alerts.yml")
    },
    **{block.place: block.text for block in OF_CONTAINERS},
}


@pytest.mark.parametrize("text", ADVICE.values(), ids=ADVICE)
def test_a_setting_that_is_advised_reaches_the_services(text: str) -> None:
    named = set(re.findall(r"JOKER_[A-Z_]+[A-Z]", text)) - SET_HERE
    assert named <= PASSED


def test_what_is_passed_on_is_the_default_of_the_setting_unless_it_is_given() -> None:
    """Except how long clients wait for Unit; see `test_what_nginx_unit_cannot_end_is_short`."""
    passed = SERVICES["web"]["environment"] | SERVICES["worker"]["environment"]
    given = {
        name: value.removeprefix(f"${{{name}-").removesuffix("}")
        for name, value in passed.items()
        if name not in MAINTAINED["services"]["web"]["environment"] and f"${{{name}-" in value
    }
    settings = load_settings(
        **{
            name.removeprefix("JOKER_").lower(): value
            for name, value in given.items()
            if name.startswith("JOKER_")
        }
    )
    assert {"JOKER_CANDIDATES", "JOKER_NUM_THREADS", "JOKER_RESULT_TTL_SECONDS"} <= set(given)
    assert settings == load_settings()
