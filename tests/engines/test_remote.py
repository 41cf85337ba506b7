from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from joker.core.errors import ConfigError, EngineDownError, InputError
from joker.core.joke import Sampling
from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import EncodedJoke
from joker.engines import GenerationListener, GenerationTask, RemoteServer
from joker.engines.engine import BatchedEngine
from joker.engines.protocol import AbandonedError, load_tokenizer
from joker.engines.remote import RemoteRunner
from joker.generation.request import GenerationRequest
from joker.generation.teller import Teller
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import Job, State
from joker.jobs.queue import MAX_ATTEMPTS
from tests.engines.completions_server import MODEL, CompletionsServer

GREEDY = Sampling(temperature=0)

Serve = Callable[..., CompletionsServer]
Open = Callable[..., BatchedEngine]


@pytest.fixture
def serve(tiny_folder: ModelFolder) -> Iterator[Serve]:
    """Return ``serve(**options)``, which runs a `CompletionsServer` for the length of a test."""
    with ExitStack() as parts:

        def start(**options: Any) -> CompletionsServer:
            return parts.enter_context(CompletionsServer(tiny_folder, **options).running())

        yield start


@pytest.fixture
def connect(tiny_folder: ModelFolder) -> Iterator[Open]:
    """Return ``connect(url, **options)``, which gives a remote engine for the length of a test."""
    with ExitStack() as parts:

        def start(url: str, timeout_seconds: float = 30.0, **options: Any) -> BatchedEngine:
            server = RemoteServer(url, **options)
            runner = RemoteRunner(tiny_folder, server, timeout_seconds=timeout_seconds)
            parts.callback(runner.close)
            tokenizer = load_tokenizer(tiny_folder, tiny_folder.path)
            return BatchedEngine(tokenizer, tiny_folder.manifest.context_length, runner)

        yield start


@pytest.fixture
def dead_url() -> str:
    """Return the URL of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def ask(engine: BatchedEngine, *, streamed: bool = False) -> GenerationTask:
    return GenerationTask(engine.tokenizer.encode_prompt("Why"), GREEDY, 1, streamed)


def test_a_server_that_is_not_there_is_named(connect: Open, dead_url: str) -> None:
    engine = connect(dead_url)
    with pytest.raises(EngineDownError, match="cannot be reached"):
        engine.generate([ask(engine)])


@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_falls_silent_is_given_up(
    serve: Serve, connect: Open, streamed: bool
) -> None:
    server = serve()
    engine = connect(server.url, timeout_seconds=0.3)
    assert engine.generate([ask(engine, streamed=streamed)])
    server.pause_seconds = 60
    with pytest.raises(EngineDownError, match="did not respond for 0"):
        engine.generate([ask(engine, streamed=streamed)])


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (429, EngineDownError, "429"),
        (500, EngineDownError, "500.*as told"),
        (404, ConfigError, "engine_url, engine_model"),
        (400, InputError, "refuses completions: .*as told"),
    ],
)
def test_a_refusal_says_why(
    serve: Serve, connect: Open, status: int, kind: type[Exception], said: str
) -> None:
    engine = connect(serve(status=status).url)
    with pytest.raises(kind, match=said):
        engine.generate([ask(engine)])


def test_a_request_that_is_refused_later_says_why(serve: Serve, connect: Open) -> None:
    server = serve()
    engine = connect(server.url)
    engine.generate([ask(engine)])
    server.status = 400
    with pytest.raises(InputError, match="refused the request: as told"):
        engine.generate([ask(engine)])


@pytest.mark.parametrize("key", [None, "another"])
def test_a_wrong_api_key_is_named(serve: Serve, connect: Open, key: str | None) -> None:
    engine = connect(serve(api_key="the key").url, api_key=key)
    with pytest.raises(ConfigError, match="engine_api_key"):
        engine.generate([ask(engine)])


def test_the_model_is_the_first_listed_or_the_one_that_is_named(
    serve: Serve, connect: Open
) -> None:
    server = serve()
    engine = connect(server.url)
    engine.generate([ask(engine)])
    assert {body["model"] for body in server.seen} == {MODEL}
    other = connect(server.url, model="other")
    with pytest.raises(ConfigError, match="engine_model"):
        other.generate([ask(other)])


def test_a_url_that_is_none_is_refused(connect: Open) -> None:
    engine = connect("not a url")
    with pytest.raises(ConfigError, match="URL"):
        engine.generate([ask(engine)])


def test_what_has_no_completions_api_is_refused(serve: Serve, connect: Open) -> None:
    engine = connect(serve().url.removesuffix("/v1"))
    with pytest.raises(ConfigError):
        engine.generate([ask(engine)])


def test_a_stream_that_breaks_off_is_no_joke(serve: Serve, connect: Open) -> None:
    engine = connect(serve(break_off=True).url)
    with pytest.raises(EngineDownError, match="ended its answer early"):
        engine.generate([ask(engine, streamed=True)])


def test_a_connection_is_used_again_after_a_stream(serve: Serve, connect: Open) -> None:
    server = serve()
    engine = connect(server.url)
    for _ in range(3):
        engine.generate([ask(engine, streamed=True)])
    assert len(server.ports) == 1


def test_closing_ends_calls_that_are_under_way(serve: Serve, tiny_folder: ModelFolder) -> None:
    server = serve(pause_seconds=60)
    runner = RemoteRunner(tiny_folder, RemoteServer(server.url))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(runner.run, [GenerationTask([0], GREEDY, 1)])
        while not server.seen:
            time.sleep(0.01)
        runner.close()
        with pytest.raises(EngineDownError, match="closed"):
            call.result(60)


class Impatient(GenerationListener):
    """Stops the work as soon as there is a token."""

    def __init__(self) -> None:
        self.heard = False

    def on_tokens(self, index: int, token_ids: list[int]) -> bool:  # noqa: ARG002
        self.heard = True
        return False

    def should_stop(self) -> bool:
        return self.heard


def test_work_that_nobody_waits_for_is_ended_at_the_server(serve: Serve, connect: Open) -> None:
    server = serve(pause_seconds=0.2)
    engine = connect(server.url)
    with pytest.raises(AbandonedError):
        engine.generate([ask(engine, streamed=True)], Impatient())
    assert server.left.wait(10)


def test_many_callers_wait_together(serve: Serve, connect: Open) -> None:
    server = serve(pause_seconds=0.01)
    engine = connect(server.url)
    engine.generate([ask(engine)])
    began = time.monotonic()
    engine.generate([ask(engine)])
    alone = time.monotonic() - began
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda _: engine.generate([ask(engine)] * 4), range(16)))
    assert time.monotonic() - began < 16 * alone
    assert len({tuple(one.token_ids) for call in told for one in call}) == 1


def test_a_server_is_examined_once(serve: Serve, connect: Open) -> None:
    server = serve()
    engine = connect(server.url)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: engine.generate([ask(engine)]), range(8)))
    assert len(server.seen) == 1 + 8


def test_a_server_that_takes_text_alone_is_sent_text(serve: Serve, connect: Open) -> None:
    server = serve(dialect="text")
    engine = connect(server.url)
    engine.generate([ask(engine)])
    engine.score([EncodedJoke([*ask(engine).prompt_ids, engine.tokenizer.end_id], 2)])
    assert [type(body["prompt"]) for body in server.seen[-2:]] == [str, str]


def request() -> GenerationRequest:
    return GenerationRequest(prompt="Why", seed=1, candidates=4)


async def _outcome(engine: BatchedEngine) -> Job:
    queue = InProcessQueue(Teller(engine).tell, workers=1)
    try:
        job = await queue.submit(request())
        return await queue.wait(job.id, 60)
    finally:
        await queue.close()


def test_a_job_is_told_by_a_server_that_comes_back(serve: Serve, connect: Open) -> None:
    job = asyncio.run(_outcome(connect(serve(failures=MAX_ATTEMPTS - 1).url)))
    assert job.state is State.SUCCESS
    assert job.attempts == MAX_ATTEMPTS
    assert job.jokes[0].question.startswith("Why")


def test_a_job_fails_with_the_reason_where_the_server_stays_away(
    serve: Serve, connect: Open
) -> None:
    job = asyncio.run(_outcome(connect(serve(status=503).url)))
    assert job.state is State.FAILURE
    assert job.attempts == MAX_ATTEMPTS
    assert job.error
    assert "503" in job.error
