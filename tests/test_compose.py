"""What settings ask for is what is built; `tests.engines` and `tests.jobs` test the parts."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from joker import compose
from joker.compose import model_name, open_queue, open_store, open_teller
from joker.core.errors import GenerationError, InputError, ModelFolderError, QueueDownError
from joker.core.model_folder import ModelFolder
from joker.engines.stub import SCRIPT
from joker.generation.request import GenerationRequest
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import State
from joker.settings import load_settings

if TYPE_CHECKING:
    from tests.conftest import RedisServer

SOURCES = Path(compose.__file__).parent
CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}


def test_tellers_are_built_in_one_place() -> None:
    built = [
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        for _ in re.findall(r"(?<![\w.])Teller\(", path.read_text(encoding="utf-8"))
    ]
    assert built == ["compose.py"]


def request(candidates: int = 1) -> GenerationRequest:
    return GenerationRequest("", 2, seed=7, safe=False, candidates=candidates)


def test_a_broker_decides_which_queue_is_opened() -> None:
    async def scenario() -> None:
        queue = open_queue(load_settings(broker="redis://127.0.0.1:1/0"))
        assert isinstance(queue, CeleryRedisQueue)
        await queue.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("broker", "database", "warnings"),
    [
        ("redis://127.0.0.1:1/0", "sqlite://", 1),
        ("redis://127.0.0.1:1/0", "sqlite:///:memory:", 1),
        ("redis://127.0.0.1:1/0", "sqlite:///jokes.sqlite", 0),
        (None, "sqlite://", 0),
    ],
)
def test_a_store_in_memory_is_warned_about_where_other_servers_may_be(
    broker: str | None, database: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    open_store(load_settings(broker=broker, database=database))
    said = [line for line in caplog.messages if "--database (JOKER_DATABASE) is sqlite" in line]
    assert len(said) == warnings


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"^--model \(JOKER_MODEL\): .*nowhere"):
        open_queue(load_settings(model=tmp_path / "nowhere"))


def test_a_missing_moderation_list_is_named(tmp_path: Path) -> None:
    settings = load_settings(engine="stub", moderation_list=tmp_path / "no-list")
    with pytest.raises(InputError, match=r"^JOKER_MODERATION_LIST: .*no-list"):
        open_teller(settings)


def test_jokes_are_kept_under_the_name_of_what_tells_them(tmp_path: Path) -> None:
    assert model_name(load_settings()) == "bundled"
    assert model_name(load_settings(model=tmp_path / "mine")) == "mine"
    assert model_name(load_settings(engine="stub", model=tmp_path / "mine")) == "stub"
    remote = load_settings(engine_url="http://gpu:8000/v1", engine_model="big")
    assert model_name(remote) == "big"


def test_an_operators_list_withholds_jokes(tmp_path: Path) -> None:
    prompt = "Why do elevators"
    settings = load_settings(engine="stub")
    assert open_teller(settings).tell(GenerationRequest(prompt))[0].question.startswith(prompt)
    listed = tmp_path / "list.txt"
    listed.write_text("[dark offensive]\nelevator\n", encoding="utf-8")
    settings = load_settings(engine="stub", moderation_list=listed)
    with pytest.raises(GenerationError, match="withholds"):
        open_teller(settings).tell(GenerationRequest(prompt))


def test_new_jokes_are_told_apart_from_those_of_the_training() -> None:
    settings = load_settings(engine="stub")
    (told,) = open_teller(settings).tell(GenerationRequest("Why do elevators"))
    assert told.original is True


@pytest.mark.parametrize(
    ("set_to", "quota", "threads"), [(3, 2, 3), (None, 2, 2), (None, None, None)]
)
def test_the_engine_gets_the_threads_that_are_set_or_the_quota(
    set_to: int | None,
    quota: int | None,
    threads: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[int | None] = []

    def load(
        folder: ModelFolder, kind: object, *, num_threads: int | None, **_others: object
    ) -> None:
        given.append(num_threads)

    monkeypatch.setattr(compose, "cpu_quota", lambda: quota)
    monkeypatch.setattr(compose, "open_engine", load)
    open_teller(load_settings(num_threads=set_to))
    assert given == [threads]


@pytest.mark.integration
def test_openvino_is_told_how_many_threads_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    from openvino_genai import ContinuousBatchingPipeline

    from joker.engines import openvino

    given: list[dict[str, object]] = []

    def load(folder: Path, scheduler: object, device: str, properties: dict[str, object]) -> object:
        given.append(properties)
        return ContinuousBatchingPipeline(folder, scheduler, device, properties)

    monkeypatch.setattr(openvino, "ContinuousBatchingPipeline", load)
    settings = load_settings(engine="openvino", num_threads=2)
    teller = open_teller(settings)
    assert len(teller.tell(GenerationRequest("Why do", seed=7))) == 1
    assert given == [{"INFERENCE_NUM_THREADS": 2, "ENABLE_CPU_PINNING": False}]
    assert "INFERENCE_NUM_THREADS" not in openvino.REPRODUCIBLE


@pytest.mark.integration
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="shows threads' cores on Linux only"
)
def test_engines_on_one_machine_may_use_different_cores() -> None:
    # In a process of its own, because other tests' libraries pin threads.
    code = """
import os
from joker.compose import open_teller
from joker.engines.protocol import GenerationListener
from joker.generation.request import GenerationRequest
from joker.settings import load_settings

cores = os.sched_getaffinity(0)
pinned = []

class Watch(GenerationListener):
    def should_stop(self):  # asked between steps, when threads still have the cores of the step
        threads = map(int, os.listdir("/proc/self/task"))
        pinned.extend(thread for thread in threads if os.sched_getaffinity(thread) != cores)
        return False

teller = open_teller(load_settings(engine="openvino", num_threads=2))
teller.tell(GenerationRequest("Why do", seed=7, candidates=4), Watch())
print("pinned", pinned)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pinned []"


@pytest.mark.parametrize("prompt", ["", "Why do", "Why do elevators make good friends?"])
def test_the_stub_tells_with_the_bundled_models_tokens(prompt: str) -> None:
    settings = load_settings(engine="stub")
    (told,) = open_teller(settings).tell(GenerationRequest(prompt, seed=7, candidates=4))
    assert told.question.startswith(prompt)
    assert told.answer in {joke.answer for joke in SCRIPT}


@pytest.mark.integration
def test_the_bundled_model_tells_in_this_process() -> None:
    async def scenario() -> None:
        queue = open_queue(load_settings(concurrency=2))
        assert isinstance(queue, InProcessQueue)
        jobs = [await queue.submit(request()) for _ in range(3)]
        told = [await queue.wait(job.id, 50) for job in jobs]
        assert {job.state for job in told} == {State.SUCCESS}
        assert len({job.jokes for job in told}) == 1
        await queue.close()

    asyncio.run(scenario())


async def submit(**given: str) -> None:
    """Put a job into the Redis that the settings name."""
    queue = open_queue(load_settings(**given))
    try:
        job = await queue.submit(request())
        assert (await queue.get(job.id)).state is State.PENDING
        await queue.cancel(job.id)
    finally:
        await queue.close()


@pytest.mark.integration
def test_a_user_of_redis_and_a_password_file_work_together(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        client.acl_setuser(
            "teller",
            enabled=True,
            passwords=["+p@ss/word"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
        )
    (tmp_path / "joker_broker_password").write_text("p@ss/word\n", encoding="utf-8")
    monkeypatch.setenv("JOKER_SECRETS_DIR", str(tmp_path))
    url = redis_server.url.replace("//", "//teller@").removesuffix("0") + "5"
    asyncio.run(submit(broker=url))
    (tmp_path / "joker_broker_password").write_text("wrong\n", encoding="utf-8")
    with pytest.raises(QueueDownError):
        asyncio.run(submit(broker=url))


@pytest.fixture
def tls_redis(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Return the URL of a Redis that speaks TLS alone, and the certificate it shows."""
    for program in ("redis-server", "openssl"):
        if shutil.which(program) is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is not installed")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*make.split(), *name, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--port 0 --tls-port {port} --tls-auth-clients no --appendonly no --save".split()
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    with subprocess.Popen(
        ["redis-server", *options, "", *files, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    ) as server:
        until = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < until, "redis-server does not answer"
            time.sleep(0.02)
        yield f"rediss://127.0.0.1:{port}/0", certificate
        server.terminate()


@pytest.mark.integration
def test_rediss_is_spoken_and_its_certificate_checked(tls_redis: tuple[str, Path]) -> None:
    url, certificate = tls_redis
    asyncio.run(submit(broker=f"{url}?ssl_ca_certs={certificate}"))
    with pytest.raises(QueueDownError, match="certificate"):
        asyncio.run(submit(broker=url))
