"""The remote engine: any server with OpenAI's completions API and log-probabilities.

vLLM, llama.cpp's server, OpenVINO Model Server and others differ in what they accept and return.
One small request before the first task detects what a server can do:

- prompts are sent as token ids, or as text to a server that accepts no ids;
- generated ids are taken from ``token_ids`` (vLLM) or the log-probabilities (llama.cpp); for other
  servers the text is encoded again;
- an answer is scored with ``echo`` in one request; a server without it is forced to generate the
  answer token by token, one request each, and reports each token's log-probability.

The model folder still gives the template and the tokenizer, so it must be the served model's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import product
from queue import Empty, SimpleQueue
from typing import Any

import httpx2 as httpx
from tokenizers import Tokenizer

from joker.core.errors import ConfigError, EngineDownError, InputError, PromptError, plural
from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import EncodedJoke
from joker.engines import RemoteServer
from joker.engines.engine import Outputs
from joker.engines.protocol import GenerationListener, is_greedy, load_tokenizer
from joker.engines.tasks import EngineTask, GenerationTask, Output, ScoringTask

_CONNECT_SECONDS = 5.0
_CONNECT_RETRIES = 3
_SEND_RETRIES = 2
_TIMEOUT_SECONDS = 30.0
_MAX_CONCURRENT_REQUESTS = 128
_POLL_SECONDS = 0.1
_STREAM_END = "[DONE]"
# The largest 32-bit seed means "random" to llama.cpp.
_SEEDS = 2**31 - 1
_MAX_LOGIT_BIAS = 100
"""The largest bias that OpenAI's API allows."""

_log = logging.getLogger(__name__)


class RemoteRunner:
    """Runs tasks on a remote server; a `joker.engines.engine.Runner` for many threads.

    Args:
        folder: The served model's folder.
        server: Its server; not contacted before the first task.
        timeout_seconds: A request fails if the server sends nothing for this long.

    Raises:
        TokenizerError: If the folder's tokenizer cannot be read.
        ConfigError: If the URL cannot be used.
    """

    def __init__(
        self,
        folder: ModelFolder,
        server: RemoteServer,
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self._client = _Client(folder, server, timeout_seconds)
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="remote engine", daemon=True
        )
        self._thread.start()

    def run(
        self, tasks: Sequence[EngineTask], listener: GenerationListener | None = None
    ) -> list[Output]:
        """Send every task as a request of its own; see `joker.engines.engine.Runner.run`.

        Raises:
            EngineDownError: If the server cannot be reached, fails or stops responding.
            ConfigError: If it rejects the API key, or lacks the model or log-probabilities.
            PromptError: If it rejects a request.
        """
        outputs = Outputs(tasks, listener)
        updates: SimpleQueue[tuple[int, Output | Exception]] = SimpleQueue()
        requests = [
            asyncio.run_coroutine_threadsafe(self._send(index, task, updates), self._loop)
            for index, task in enumerate(tasks)
        ]
        try:
            while not outputs.complete:
                outputs.raise_if_abandoned()
                try:
                    index, update = updates.get(timeout=_POLL_SECONDS)
                except Empty:
                    if self._closed:
                        raise EngineDownError("the remote engine was closed") from None
                    continue
                if isinstance(update, Exception):
                    raise update
                for ended in outputs.add({index: update}):
                    requests[ended].cancel()
        finally:
            for request in requests:  # Closing the connection makes the server stop generating.
                request.cancel()
        return outputs.results

    def close(self) -> None:
        """Close the connections; pending calls raise `EngineDownError`."""
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _send(
        self, index: int, task: EngineTask, updates: SimpleQueue[tuple[int, Output | Exception]]
    ) -> None:
        try:
            if isinstance(task, ScoringTask):
                scores = await self._client.score(task.joke)
                updates.put((index, Output(done=True, log_probabilities=scores)))
            else:
                async for output in self._client.generate(task):
                    updates.put((index, output))
        except Exception as error:  # It is raised in the calling thread.
            updates.put((index, error))


@dataclass(frozen=True, slots=True)
class _Capabilities:
    """What a server can do.

    Attributes:
        model: The name of the model there.
        takes_ids: Whether a prompt may be token ids.
        echoes: Whether it returns the log-probabilities of the prompt's tokens.
        gives_ids: Whether its output includes token ids.
    """

    model: str
    takes_ids: bool
    echoes: bool
    gives_ids: bool


class _Client:
    """The HTTP client, in one event loop.

    Args:
        folder: The served model's folder.
        server: Where it is.
        timeout_seconds: Maximum time to wait for the next bytes of an answer.
    """

    def __init__(self, folder: ModelFolder, server: RemoteServer, timeout_seconds: float) -> None:
        self._tokenizer = load_tokenizer(folder, folder.path)
        # Unlike the jokes' tokenizer, it encodes the text of a special token as that token.
        self._special_tokenizer = Tokenizer.from_str(self._tokenizer.backend.to_str())
        self._special_tokenizer.encode_special_tokens = False
        self._server = server
        self._timeout_seconds = timeout_seconds
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT_REQUESTS)
        self._detecting = asyncio.Lock()
        self._capabilities: _Capabilities | None = None
        key = {"Authorization": f"Bearer {server.api_key}"} if server.api_key else {}
        try:
            self._http = httpx.AsyncClient(
                base_url=server.url,
                headers=key,
                timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS, pool=None),
                transport=httpx.AsyncHTTPTransport(
                    retries=_CONNECT_RETRIES,
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                ),
            )
        except httpx.InvalidURL as error:
            raise ConfigError(f"engine_url cannot be used: {error}") from error

    async def close(self) -> None:
        """Cancel all requests and close the connections."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._http.aclose()
        await asyncio.sleep(0)  # Sockets close in the loop's next iteration.

    async def generate(self, task: GenerationTask) -> AsyncIterator[Output]:
        """Yield a task's tokens, one by one if it is streamed."""
        capabilities = await self._detect_capabilities()
        body = self._body(capabilities, task.prompt_ids) | self._sampling(task)
        if not task.streamed:
            choice = await self._post(body)
            ids = self._token_ids(choice)
            yield Output([*ids, *self._missing_end(choice["finish_reason"], ids)], done=True)
            return
        ids = []
        reason: str | None = None
        # Read to the end: only then is the connection reused.
        async for choice in self._stream(body):
            for token in self._token_ids(choice):
                ids.append(token)
                yield Output([token])
            reason = choice.get("finish_reason") or reason
        if reason is None:
            raise EngineDownError("the engine's server ended its answer early; try again later")
        yield Output(self._missing_end(reason, ids), done=True)

    async def score(self, joke: EncodedJoke) -> list[float]:
        """Return the log-probabilities of the tokens from the answer's first, in nats."""
        capabilities = await self._detect_capabilities()
        if capabilities.echoes:
            return await self._score_echoed(capabilities, joke)
        if not capabilities.gives_ids:
            raise ConfigError(
                "the server at engine_url returns no log-probabilities for answers, which "
                "ranking needs; set candidates to 1, or use another server"
            )
        positions = range(joke.answer_start, len(joke))
        forced = [
            self._score_forced(capabilities, joke.input_ids, position) for position in positions
        ]
        return await asyncio.gather(*forced)

    async def _score_echoed(self, capabilities: _Capabilities, joke: EncodedJoke) -> list[float]:
        ids = joke.input_ids
        # Servers generate at least one token.
        body = self._body(capabilities, ids) | {"echo": True, "logprobs": 1, "max_tokens": 1}
        logprobs = (await self._post(body))["logprobs"]
        values: list[float] = logprobs["token_logprobs"]
        if capabilities.takes_ids:
            return values[joke.answer_start : len(ids)]
        # The server may split the text into other tokens: those that begin in the answer count.
        start, end = len(self._decode(ids[: joke.answer_start])), len(self._decode(ids))
        offsets = zip(logprobs["text_offset"], values, strict=True)
        return [value for offset, value in offsets if start <= offset < end]

    async def _score_forced(
        self, capabilities: _Capabilities, ids: Sequence[int], position: int
    ) -> float:
        """Return log p(one token | those before it), without the bias that forces it."""
        token = ids[position]
        body = self._body(capabilities, ids[:position]) | {
            "temperature": 0,
            "max_tokens": 1,
            "logprobs": 1,
            "logit_bias": {str(token): _MAX_LOGIT_BIAS},
        }
        generated, *_ = (await self._post(body))["logprobs"]["content"]
        return float(generated["logprob"]) if generated["id"] == token else -math.inf

    async def _detect_capabilities(self) -> _Capabilities:
        """Return what the server can do, which the first call finds out."""
        async with self._detecting:
            if self._capabilities is None:
                self._capabilities = await self._probe()
                _log.info("remote engine: %s", self._capabilities)
            return self._capabilities

    async def _probe(self) -> _Capabilities:
        model = self._server.model or await self._first_model()
        prompt = self._tokenizer.encode_prompt("Why")
        for takes_ids, echoes in product((True, False), repeat=2):
            assumed = _Capabilities(model, takes_ids, echoes, gives_ids=False)
            body = self._body(assumed, prompt) | {"logprobs": 1, "max_tokens": 1}
            try:
                choice = await self._post(body | ({"echo": True} if echoes else {}))
            except ConfigError:
                raise
            except InputError as refused:
                reason = refused
                continue
            logprobs = choice.get("logprobs") or {}
            echoed = len(logprobs.get("token_logprobs") or ()) >= len(prompt)
            content = logprobs.get("content") or [{}]
            gives_ids = takes_ids and ("token_ids" in choice or "id" in content[0])
            return _Capabilities(model, takes_ids, echoes and echoed, gives_ids)
        raise ConfigError(f"the engine's server refuses completions: {reason}")

    async def _first_model(self) -> str:
        with self._translate_errors():
            response = await self._http.get("models")
        await self._check(response)
        try:
            return str(response.json()["data"][0]["id"])
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError("the engine's server lists no model; set engine_model") from error

    def _body(self, capabilities: _Capabilities, ids: Sequence[int]) -> dict[str, Any]:
        """Return the fields of every request."""
        return {
            "model": capabilities.model,
            "prompt": list(ids) if capabilities.takes_ids else self._decode(ids),
            # Keep the markers in the output: for vLLM, and for llama.cpp.
            "return_token_ids": True,
            "skip_special_tokens": False,
            "preserved_tokens": list(self._tokenizer.template.special_tokens),
            # The prompt is complete.
            "add_special_tokens": False,
        }

    def _sampling(self, task: GenerationTask) -> dict[str, Any]:
        sampling = task.sampling
        greedy = is_greedy(sampling)
        limits_k = 0 < sampling.top_k < self._tokenizer.vocabulary_size
        return {
            "max_tokens": sampling.max_new_tokens,
            "seed": task.seed % _SEEDS,
            "temperature": 0 if greedy else sampling.temperature,
            "top_p": 1 if greedy else sampling.top_p,
            "top_k": sampling.top_k if limits_k and not greedy else -1,
            "logprobs": 1,
            # llama.cpp has other defaults.
            "min_p": 0,
            "samplers": ["top_k", "temperature", "top_p"],
        }

    def _token_ids(self, choice: dict[str, Any]) -> list[int]:
        """Return the token ids of an answer or of one part of a stream."""
        token_ids = choice.get("token_ids")
        if token_ids is not None:
            return list(token_ids)
        text = choice.get("text") or ""
        content = (choice.get("logprobs") or {}).get("content") or []
        ids = [entry["id"] for entry in content if "id" in entry]
        text_ids = ids[:-1] if ids[-1:] == [self._tokenizer.end_id] else ids
        # llama.cpp leaves out tokens that end within a character.
        if ids and self._decode(text_ids) == text:
            return ids
        return list(self._special_tokenizer.encode(text, add_special_tokens=False).ids)

    def _missing_end(self, reason: str, ids: Sequence[int]) -> list[int]:
        """Return the end token if it was reached but is not among the ids."""
        if reason not in ("stop", "length"):
            raise EngineDownError(f"the engine's server stopped with {reason!r}; try again later")
        missing = reason == "stop" and list(ids[-1:]) != [self._tokenizer.end_id]
        return [self._tokenizer.end_id] if missing else []

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.backend.decode(list(ids), skip_special_tokens=False))

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the one choice of an answer."""
        async with self._slots, self._open_response(body) as response:
            await response.aread()
        try:
            choice: dict[str, Any] = response.json()["choices"][0]
        except (ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                "the server at engine_url has no completions API; correct engine_url"
            ) from error
        return choice

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the one choice of every part of a streamed answer."""
        async with self._slots, self._open_response(body | {"stream": True}) as response:
            async for line in response.aiter_lines():
                name, _, data = line.partition(":")
                if name != "data" or data.strip() == _STREAM_END:
                    continue
                part = json.loads(data)
                if "error" in part:
                    raise EngineDownError(f"the engine's server failed: {_error_message(part)}")
                for choice in part.get("choices", ()):
                    yield choice

    @asynccontextmanager
    async def _open_response(self, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        request = self._http.build_request("POST", "completions", json=body)
        with self._translate_errors():
            for retries_left in reversed(range(_SEND_RETRIES + 1)):
                try:
                    response = await self._http.send(request, stream=True)
                except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                    # The server may have just closed the idle connection.
                    if not retries_left or isinstance(error, httpx.ConnectError):
                        raise
                else:
                    break
            try:
                await self._check(response)
                yield response
            finally:
                await response.aclose()

    async def _check(self, response: httpx.Response) -> None:
        """Raise the error for an HTTP error status."""
        status = response.status_code
        if status < 400:
            return
        await response.aread()
        try:
            reason = _error_message(response.json())
        except ValueError:
            reason = response.reason_phrase
        if status in (401, 403):
            raise ConfigError(f"the engine's server refuses the API key (engine_api_key): {reason}")
        if status == 404:
            raise ConfigError(
                f"the engine's server does not know this path or model "
                f"(engine_url, engine_model): {reason}"
            )
        if status in (408, 425, 429) or status >= 500:
            raise EngineDownError(
                f"the engine's server answered {status} ({reason}); try again later"
            )
        raise PromptError(f"the engine's server refused the request: {reason}")

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise EngineDownError(
                "the engine's server cannot be reached; start it, or correct engine_url"
            ) from error
        except httpx.TimeoutException as error:
            raise EngineDownError(
                f"the engine's server did not respond for {self._timeout_seconds:g} "
                f"{plural(self._timeout_seconds, 'second')}; "
                "try again later"
            ) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ConfigError(f"engine_url cannot be used: {error}") from error
        except httpx.TransportError as error:
            raise EngineDownError(
                "the connection to the engine's server was lost "
                f"({error or type(error).__name__}); try again later"
            ) from error


def _error_message(answer: Any) -> str:
    """Return the message of an error's JSON, in one line."""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:300]
