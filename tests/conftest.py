"""What every test may ask for: our own jokes, a tiny model folder that tells them, and a Redis."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from benchmarks.servers import free_port
from joker.core.joke import Joke
from joker.core.model_folder import Manifest, ModelFolder, write_manifest
from joker.core.template import MarkerKind, Template, load_template
from joker.core.tokenizer import JokeTokenizer

END_TOKEN = "<|endoftext|>"
CONTEXT_LENGTH = 128
TRAINING_STEPS = 120

JOKES = (
    ("Why did the kettle quit the choir?", "It could only hold one note and then it clicked off."),
    ("What does a spider order in a café?", "Anything that comes with a free web page."),
    ("Why was the staircase so proud?", "It had finally been promoted to escalator."),
    ("What do you call a sleepy lighthouse?", "A nap with a view."),
    ("Why do pillows never win debates?", "They always soften their position."),
    ("How does a glacier say goodbye?", "It takes an age."),
    ("Why did the umbrella see a doctor?", "It kept folding under pressure."),
    ("What is a mirror's favorite hobby?", "Thinking things over, backwards."),
    ("Why did the notebook join a gym?", "It was after a much stronger spine."),
    ("What did the lamp tell the candle?", "You really should switch to something steady."),
    ("Why do bees make poor librarians?", "They hum through every chapter."),
    ("How do mountains hear the news?", "They wait for it to come round again."),
    ("Why did the spoon leave the drawer?", "It was tired of all the forked remarks."),
    ("What do you give a nervous compass?", "A little direction and plenty of north."),
    ("Why did the garden hose go to school?", "It wanted to get straight at last."),
    ("What does a snail pack for a trip?", "Nothing, the house comes along."),
    ("Why was the violin always broke?", "Too many strings attached to its money."),
    ("What does a cloud keep in its coat?", "A silver lining and a spare puddle."),
    ("Why don't clocks play hide and seek?", "Someone always hears them ticking off."),
    ("What did the river say to the bridge?", "Don't get over me so quickly."),
)

MakeFolder = Callable[..., ModelFolder]


def pytest_configure(config: pytest.Config) -> None:
    """Keep the jokes of servers that tests start out of the store of whoever runs the tests."""
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    os.environ["XDG_DATA_HOME"] = folder.name


def _require(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        # CI installs every part, so there a missing one is a failure and no reason to skip.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{module} is not installed")


@pytest.fixture(scope="session")
def require() -> Callable[[str], None]:
    """Return a function that skips, or on CI fails, a test whose named module is missing."""
    return _require


@pytest.fixture(scope="session", autouse=True)
def _user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let what is cached for a user, such as exported graphs, last for the session only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def sample_jokes() -> list[Joke]:
    """Return twenty jokes, the ones that the tiny model learned."""
    return [Joke(question, answer) for question, answer in JOKES]


@pytest.fixture(scope="session")
def sample_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a CSV file of the sample jokes with the columns Question and Answer."""
    path = tmp_path_factory.mktemp("jokes") / "sample.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("Question", "Answer"), *JOKES])
    return path


@pytest.fixture(scope="session")
def make_tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> MakeFolder:
    """Return ``make(template="original", markers=None)``, which gives a folder trained on `JOKES`.

    Each layout is trained once a session; do not change what lies in the folder.
    """

    @cache
    def train(template: Template) -> ModelFolder:
        return _train_folder(tmp_path_factory.mktemp(template.label), template)

    def make(template: str = "original", markers: MarkerKind | None = None) -> ModelFolder:
        return train(load_template(template).with_markers(markers))

    return make


@pytest.fixture(scope="session")
def tiny_folder(make_tiny_folder: MakeFolder) -> ModelFolder:
    """Return a model folder of the original layout."""
    return make_tiny_folder()


@pytest.fixture(scope="session")
def served_folder(
    tiny_folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory
) -> ModelFolder:
    """Return a copy of `tiny_folder` that also holds an OpenVINO graph; do not change it."""
    for module in ("nncf", "openvino_genai", "optimum"):
        _require(module)
    from joker.compose import ensure_graph

    path = tmp_path_factory.mktemp("served") / "model"
    shutil.copytree(tiny_folder.path, path)
    shutil.copytree(ensure_graph(tiny_folder).openvino, path / "openvino")
    return ModelFolder.open(path)


class RedisServer:
    """A Redis of the test's own on a free port; what is in it outlives a stop and start."""

    def __init__(self, folder: Path, program: str = "redis-server", **options: str) -> None:
        self._program = program
        self._options = options
        self._port = free_port()
        self._folder = folder
        password = options.get("requirepass")
        user = f":{quote(password, safe='')}@" if password else ""
        self.url = f"redis://{user}127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {
            "--bind": "127.0.0.1",
            "--port": str(self._port),
            "--dir": str(self._folder),
            "--appendonly": "yes",
            "--save": "",
        } | {f"--{name}": value for name, value in self._options.items()}
        arguments = [part for option in options.items() for part in option]
        self._process = subprocess.Popen(
            [self._program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < until, f"{self._program} does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(60)

    def _answers(self) -> bool:
        import redis

        with redis.Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


@pytest.fixture(scope="session")
def start_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RedisServer]]:
    """Return ``start(program="redis-server", **options)``: a running Redis of nobody else's."""
    if shutil.which("redis-server") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    servers = []

    def start(program: str = "redis-server", **options: str) -> RedisServer:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
        servers.append(RedisServer(tmp_path_factory.mktemp("redis"), program, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def redis_server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """Return a running Redis that tests share; do not stop it."""
    return start_redis()


def _train_folder(path: Path, template: Template) -> ModelFolder:
    """Train a two-layer GPT-2 with a small byte-level BPE until it has learned `JOKES`."""
    _require("torch")
    _require("transformers")
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    transformers: Any = importlib.import_module("transformers")
    jokes = [Joke(question, answer) for question, answer in JOKES]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END_TOKEN],
        show_progress=False,
    )
    backend.train_from_iterator([part for joke in JOKES for part in joke], trainer)
    backend.add_special_tokens(
        [AddedToken(text, normalized=False) for text in template.special_tokens]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END_TOKEN, bos_token=END_TOKEN
    ).save_pretrained(path)
    tokenizer = JokeTokenizer.from_folder(path, template)

    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=tokenizer.vocabulary_size,
            n_positions=CONTEXT_LENGTH,
            n_embd=64,
            n_layer=2,
            n_head=2,
            bos_token_id=tokenizer.end_id,
            eos_token_id=tokenizer.end_id,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )
    encoded = [tokenizer.encode(joke).input_ids for joke in jokes]
    width = max(map(len, encoded))
    padded = torch.tensor([ids + [tokenizer.end_id] * (width - len(ids)) for ids in encoded])
    lengths = torch.tensor([[len(ids)] for ids in encoded])
    labels = padded.masked_fill(torch.arange(width) >= lengths, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(TRAINING_STEPS):
        optimizer.zero_grad()
        model(input_ids=padded, labels=labels).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(path)
    write_manifest(path, Manifest(template, "new:tiny", CONTEXT_LENGTH))
    return ModelFolder.open(path)
