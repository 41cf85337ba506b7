"""A server with OpenAI's completions API over the stub batch, in a thread of the test's own.

It speaks two dialects: vLLM's, with token ids both ways, and the plain one, with text both ways.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tokenizers import Tokenizer

from joker.core.joke import Sampling
from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import EncodedJoke
from joker.engines.protocol import load_tokenizer
from joker.engines.stub import StubBatch
from joker.engines.tasks import GenerationTask, ScoringTask

Dialect = Literal["ids", "text"]
MODEL = "joker"


@dataclass
class CompletionsServer:
    """What the server serves, and what a test has it do wrong.

    Attributes:
        folder: Its model.
        dialect: What prompts and answers are.
        api_key: What clients must send.
        status: Answers this to every completion, where it is no 200.
        failures: Answers 503 to so many completions first.
        pause_seconds: Waits so long before every token.
        break_off: Ends streams before their end.
        seen: Bodies of all completions asked for.
        ports: Where they came from, one for each connection.
        left: Set once a client has closed a stream before its end.
        url: Base URL while it runs.
    """

    folder: ModelFolder
    dialect: Dialect = "ids"
    api_key: str | None = None
    status: int = 200
    failures: int = 0
    pause_seconds: float = 0.0
    break_off: bool = False
    seen: list[dict[str, Any]] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)
    left: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self._tokenizer = load_tokenizer(self.folder, self.folder.path)
        self._reader = Tokenizer.from_str(self._tokenizer.backend.to_str())
        self._reader.encode_special_tokens = False

    @contextmanager
    def running(self) -> Iterator[CompletionsServer]:
        """Serve in a thread until the context ends."""
        routes = [
            Route("/v1/models", self._models),
            Route("/v1/completions", self._completions, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            try:
                yield self
            finally:
                server.should_exit = server.force_exit = True
                thread.join(30)

    async def _models(self, request: Request) -> Response:
        return self._refusal(request) or JSONResponse({"data": [{"id": MODEL}]})

    async def _completions(self, request: Request) -> Response:
        body = await request.json()
        self.seen.append(body)
        assert request.client
        self.ports.add(request.client.port)
        if refusal := self._refusal(request):
            return refusal
        failing = len(self.seen) <= self.failures
        if failing or self.status != 200:
            status = 503 if failing else self.status
            return JSONResponse({"error": {"message": "as told"}}, status)
        prompt = body["prompt"]
        if isinstance(prompt, list) and self.dialect == "text":
            return JSONResponse({"error": {"message": "the prompt must be a text"}}, 400)
        if body["model"] != MODEL:
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        ids = prompt if isinstance(prompt, list) else self._read(prompt)
        if body.get("echo"):
            return JSONResponse({"choices": [self._echo(ids)]})
        drawn = self._draw(ids, body)
        if body.get("stream"):
            return StreamingResponse(self._parts(drawn), media_type="text/event-stream")
        for _ in drawn:
            await asyncio.sleep(self.pause_seconds)
        return JSONResponse({"choices": [self._choice(drawn, self._reason(drawn))]})

    def _refusal(self, request: Request) -> Response | None:
        if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return JSONResponse({"error": {"message": "wrong key"}}, 401)
        return None

    def _draw(self, ids: list[int], body: dict[str, Any]) -> list[int]:
        sampling = Sampling(
            temperature=body["temperature"],
            top_k=max(0, body["top_k"]),
            top_p=body["top_p"],
            max_new_tokens=body["max_tokens"],
        )
        batch = StubBatch(self._tokenizer)
        batch.add((0, 0), GenerationTask(ids, sampling, body["seed"]))
        drawn: list[int] = []
        while new := batch.step():
            drawn += new[0, 0].token_ids
        return drawn

    def _echo(self, ids: list[int]) -> dict[str, Any]:
        batch = StubBatch(self._tokenizer)
        batch.add((0, 0), ScoringTask(EncodedJoke(ids, 1)))
        scores = batch.step()[0, 0].log_probabilities
        ends = accumulate(len(self._spell([token])) for token in ids)
        return {
            "text": self._spell(ids),
            "finish_reason": "length",
            "logprobs": {
                "token_logprobs": [None, *scores],
                "text_offset": [0, *list(ends)[:-1]],
            },
        }

    async def _parts(self, drawn: list[int]) -> AsyncIterator[str]:
        try:
            for token in drawn[: -1 if self.break_off else None]:
                await asyncio.sleep(self.pause_seconds)
                yield _event({"choices": [self._choice([token], None)]})
            if not self.break_off:
                yield _event({"choices": [self._choice([], self._reason(drawn))]})
                yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left.set()
            raise

    def _choice(self, ids: list[int], reason: str | None) -> dict[str, Any]:
        spoken = [token for token in ids if token != self._tokenizer.end_id]
        choice = {"index": 0, "text": self._spell(spoken), "finish_reason": reason}
        return choice | ({"token_ids": ids} if self.dialect == "ids" else {})

    def _reason(self, drawn: list[int]) -> str:
        return "stop" if drawn[-1:] == [self._tokenizer.end_id] else "length"

    def _read(self, text: str) -> list[int]:
        return list(self._reader.encode(text, add_special_tokens=False).ids)

    def _spell(self, ids: list[int]) -> str:
        return str(self._tokenizer.backend.decode(ids, skip_special_tokens=False))


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
