"""What every engine promises, checked on each of them."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from joker.core.errors import InputError
from joker.core.joke import Joke, Sampling
from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import EncodedJoke
from joker.engines import (
    Engine,
    EngineKind,
    GenerationListener,
    GenerationTask,
    RemoteServer,
    open_engine,
)
from joker.engines.protocol import AbandonedError
from joker.engines.stub import SCRIPT
from joker.engines.weights import load_causal_lm
from tests.engines.completions_server import CompletionsServer, Dialect

GREEDY = Sampling(temperature=0)
VARIED = Sampling(temperature=3.0, top_k=0, top_p=1.0, max_new_tokens=20)
API_KEY = "a key of the test's"


@dataclass(frozen=True)
class Kind:
    """An engine to be tested.

    Attributes:
        name: What runs the model.
        shared: Whether it takes many threads.
        reproducible: Whether it promises the same tokens for the same seed in any company.
        dialect: What the remote server over the stub speaks; None is llama.cpp's server.
    """

    name: EngineKind
    shared: bool = False
    reproducible: bool = True
    dialect: Dialect | None = None

    @property
    def scripted(self) -> bool:
        """Whether the jokes are the stub's."""
        return self.name == "stub" or self.dialect is not None

    def __str__(self) -> str:
        served = f"-{self.dialect or 'llama.cpp'}" if self.name == "remote" else ""
        mode = "" if self.reproducible or served else "-default"
        return f"{self.name}{served}{mode}-{'shared' if self.shared else 'thread'}"


@pytest.fixture(
    scope="module",
    params=[
        Kind("stub"),
        Kind("remote", shared=True, dialect="ids"),
        Kind("remote", shared=True, dialect="text"),
        pytest.param(Kind("openvino"), marks=pytest.mark.integration),
        pytest.param(Kind("openvino", reproducible=False), marks=pytest.mark.integration),
        pytest.param(Kind("openvino", shared=True), marks=pytest.mark.integration),
        pytest.param(Kind("stub", shared=True), marks=pytest.mark.integration),
        pytest.param(
            Kind("remote", shared=True, reproducible=False), marks=pytest.mark.integration
        ),
    ],
    ids=str,
)
def kind(request: pytest.FixtureRequest) -> Kind:
    parameter: Kind = request.param
    return parameter


@pytest.fixture(scope="module")
def folder(kind: Kind, request: pytest.FixtureRequest) -> ModelFolder:
    name = "served_folder" if kind.name == "openvino" else "tiny_folder"
    model: ModelFolder = request.getfixturevalue(name)
    return model


@pytest.fixture(scope="module")
def server(
    kind: Kind, folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RemoteServer | None]:
    """Run the server that a remote engine asks."""
    with ExitStack() as parts:
        if kind.name != "remote":
            yield None
        elif kind.dialect:
            served = CompletionsServer(folder, kind.dialect, API_KEY)
            parts.enter_context(served.running())
            yield RemoteServer(served.url, API_KEY)
        else:
            for module in ("xllamacpp", "gguf"):
                if importlib.util.find_spec(module) is None:
                    missing = f"llama.cpp's server needs {module}: pip install {module}"
                    (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
            from tests.engines.llama_cpp import llama_cpp_server

            scratch: Path = tmp_path_factory.mktemp("llama.cpp")
            yield RemoteServer(
                parts.enter_context(llama_cpp_server(folder, scratch, API_KEY)), API_KEY
            )


@pytest.fixture(scope="module")
def engine(kind: Kind, folder: ModelFolder, server: RemoteServer | None) -> Iterator[Engine]:
    engine = open_engine(
        folder, kind.name, reproducible=kind.reproducible, server=server, shared=kind.shared
    )
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def learned(kind: Kind, sample_jokes: list[Joke]) -> list[Joke]:
    """Return the jokes that the engine knows."""
    return list(SCRIPT) if kind.scripted else sample_jokes


@pytest.fixture
def needs_model(kind: Kind) -> None:
    """Leave out what only something with probabilities can do."""
    if kind.scripted:
        pytest.skip("a script has no probabilities")


@pytest.fixture
def promises_seeds(kind: Kind) -> None:
    """Leave out what only an engine that is reproducible promises."""
    if not kind.reproducible:
        pytest.skip("seeds are best effort here")


def task(engine: Engine, prompt: str, sampling: Sampling, seed: int) -> GenerationTask:
    return GenerationTask(engine.tokenizer.encode_prompt(prompt), sampling, seed)


def ids(engine: Engine, *tasks: GenerationTask) -> list[list[int]]:
    return [completion.token_ids for completion in engine.generate(tasks)]


def test_a_known_question_start_gives_the_learned_joke(engine: Engine, learned: list[Joke]) -> None:
    (completion,) = engine.generate([task(engine, "What do you call a", GREEDY, seed=0)])
    assert completion.finished
    assert completion.token_ids[-1] == engine.tokenizer.end_id
    assert engine.tokenizer.parse(completion.token_ids) == learned[3]


def test_completions_keep_the_order_of_requests(engine: Engine, learned: list[Joke]) -> None:
    prompts = [joke.question for joke in learned]
    completions = engine.generate([task(engine, prompt, GREEDY, seed=0) for prompt in prompts])
    jokes = [engine.tokenizer.parse(completion.token_ids) for completion in completions]
    assert [joke and joke.question for joke in jokes] == prompts


def test_completions_begin_with_the_prompt_ids(engine: Engine) -> None:
    prompt_ids = engine.tokenizer.encode_prompt("Why do")
    (completion,) = engine.generate([task(engine, "Why do", VARIED, seed=1)])
    assert completion.token_ids[: len(prompt_ids)] == prompt_ids


@pytest.mark.usefixtures("promises_seeds")
def test_the_same_seed_gives_the_same_tokens(engine: Engine) -> None:
    request = task(engine, "Why", VARIED, seed=2**32 - 1)
    first, again = ids(engine, request, request)
    assert first == again == ids(engine, request)[0]


@pytest.mark.usefixtures("needs_model")
def test_different_seeds_give_different_tokens(engine: Engine) -> None:
    requests = [task(engine, "Why", VARIED, seed) for seed in range(10)]
    assert len(set(map(tuple, ids(engine, *requests)))) == 10


@pytest.mark.usefixtures("promises_seeds")
def test_a_request_gives_the_same_tokens_alone_and_in_company(
    engine: Engine, sample_jokes: list[Joke]
) -> None:
    samplings = (VARIED, Sampling(1.5, 10, 0.9, 30), GREEDY, Sampling(2.0, 0, 0.5, 7))
    requests = [
        task(engine, joke.question[: 3 * number], samplings[number % 4], seed=number)
        for number, joke in enumerate(sample_jokes * 4)
    ]
    together = ids(engine, *requests)
    assert together[::8] == [ids(engine, request)[0] for request in requests[::8]]
    assert together[::-1] == ids(engine, *requests[::-1])


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1e-40), Sampling(3.0, top_k=1)])
def test_the_likeliest_token_needs_no_luck(engine: Engine, sampling: Sampling) -> None:
    requests = [task(engine, "How does", replace(sampling, top_p=1.0), seed) for seed in range(5)]
    assert ids(engine, *requests) == ids(engine, task(engine, "How does", GREEDY, seed=9)) * 5


def test_no_more_than_max_new_tokens_are_generated(engine: Engine) -> None:
    prompt_ids = engine.tokenizer.encode_prompt("Why")
    (completion,) = engine.generate(
        [task(engine, "Why", replace(GREEDY, max_new_tokens=3), seed=0)]
    )
    assert len(completion.token_ids) == len(prompt_ids) + 3
    assert not completion.finished


def test_the_context_is_never_exceeded(engine: Engine, folder: ModelFolder) -> None:
    context_length = folder.manifest.context_length
    prompt = "why" * (context_length // 3)
    while len(engine.tokenizer.encode_prompt(prompt)) > context_length - 3:
        prompt = prompt[:-1]
    wild = Sampling(5.0, top_k=0, top_p=1.0, max_new_tokens=10**20)
    completions = engine.generate([task(engine, prompt, wild, seed) for seed in range(5)])
    assert max(len(completion.token_ids) for completion in completions) == context_length
    for completion in completions:
        assert completion.finished or len(completion.token_ids) == context_length


def test_a_prompt_that_fills_the_context_is_refused(engine: Engine) -> None:
    with pytest.raises(InputError, match="leaves no room"):
        engine.generate([task(engine, "fine", GREEDY, 0), task(engine, "why " * 200, GREEDY, 0)])
    assert ids(engine, task(engine, "fine", replace(GREEDY, max_new_tokens=1), 0))


def test_an_empty_prompt_invents_the_question(engine: Engine, learned: list[Joke]) -> None:
    (completion,) = engine.generate([task(engine, "", Sampling(top_k=5), seed=3)])
    assert engine.tokenizer.parse(completion.token_ids) in learned


def test_no_requests_give_no_completions(engine: Engine) -> None:
    assert engine.generate([]) == []


def test_a_top_k_beyond_the_vocabulary_keeps_all(engine: Engine) -> None:
    kept, huge = ids(
        engine,
        task(engine, "Why", VARIED, seed=4),
        task(engine, "Why", replace(VARIED, top_k=10**30), 4),
    )
    assert kept == huge


@pytest.fixture
def encoded(engine: Engine, learned: list[Joke]) -> list[EncodedJoke]:
    """Return every question with its own answer, with another's, and every answer alone."""
    strange = [Joke(joke.question, other.answer) for joke, other in pairwise(learned)]
    tokenizer = engine.tokenizer
    told = [tokenizer.encode(joke) for joke in [*learned, *strange]]
    return told + [tokenizer.encode_answer_alone(joke) for joke in learned]


def total_scores(engine: Engine, jokes: list[EncodedJoke]) -> list[float]:
    return [math.fsum(scores) for scores in engine.score(jokes)]


@pytest.mark.usefixtures("needs_model")
def test_scores_are_the_log_probabilities_of_the_weights(
    engine: Engine, folder: ModelFolder, encoded: list[EncodedJoke]
) -> None:
    model = load_causal_lm(folder, "cpu")
    expected = []
    for joke in encoded:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([joke.input_ids])).logits[0].double()
        places = torch.arange(joke.answer_start, len(joke))
        chosen = logits.log_softmax(-1)[places - 1, torch.tensor(joke.input_ids)[places]]
        expected.append(float(chosen.sum()))
    # Whole numbers of 8 bits as weights move a logarithm by some thousandths of itself.
    assert total_scores(engine, encoded) == pytest.approx(expected, rel=2e-2, abs=2e-2)


@pytest.mark.usefixtures("promises_seeds")
def test_a_score_is_the_same_alone_and_in_company(
    engine: Engine, encoded: list[EncodedJoke]
) -> None:
    together = total_scores(engine, encoded * 3)
    alone = [total_scores(engine, [each])[0] for each in encoded[::7]]
    assert together[: len(encoded) : 7] == pytest.approx(alone, rel=1e-4)
    assert together[::-1] == pytest.approx(total_scores(engine, encoded[::-1]) * 3, rel=1e-4)


def test_what_fills_the_context_has_a_score_and_what_exceeds_it_none(
    engine: Engine, folder: ModelFolder
) -> None:
    filling = EncodedJoke([engine.tokenizer.start_id] * folder.manifest.context_length, 1)
    beyond = EncodedJoke([*filling.input_ids, engine.tokenizer.end_id], 1)
    short = EncodedJoke(filling.input_ids[:3], 2)
    scores = total_scores(engine, [short, beyond, filling])
    assert scores[1] == -math.inf
    assert -math.inf < scores[2] < scores[0] < 0


def test_nothing_has_no_scores(engine: Engine) -> None:
    assert engine.score([]) == []


@pytest.mark.usefixtures("promises_seeds")
def test_scoring_leaves_the_next_jokes_as_they_were(
    engine: Engine, encoded: list[EncodedJoke]
) -> None:
    requests = [task(engine, "Why", VARIED, seed) for seed in range(4)]
    before = ids(engine, *requests)
    engine.score(encoded)
    assert ids(engine, *requests) == before


def test_a_true_answer_is_likelier_than_anothers(engine: Engine, learned: list[Joke]) -> None:
    strange = Joke(learned[0].question, learned[1].answer)
    encoded = [engine.tokenizer.encode(joke) for joke in (learned[0], strange)]
    right, wrong = total_scores(engine, encoded)
    assert wrong < right


class Hearing(GenerationListener):
    """Remembers all tokens, and leaves after so many calls."""

    def __init__(self, patience: int = 1_000) -> None:
        self.heard: dict[int, list[list[int]]] = {}
        self._patience = patience

    def on_tokens(self, index: int, token_ids: list[int]) -> bool:
        self.heard.setdefault(index, []).append(token_ids)
        return False

    def should_stop(self) -> bool:
        return sum(map(len, self.heard.values())) >= self._patience


def test_tokens_are_heard_as_they_are_drawn(engine: Engine) -> None:
    requests = [
        replace(task(engine, "Why", replace(GREEDY, max_new_tokens=5), 1), streamed=True),
        replace(task(engine, "What", GREEDY, 2), streamed=True),
        task(engine, "How", GREEDY, 3),
    ]
    listener = Hearing()
    completions = engine.generate(requests, listener)
    assert listener.heard.keys() == {0, 1}, "the third is not streamed"
    for place, (request, completion) in enumerate(zip(requests[:2], completions, strict=False)):
        drawn = completion.token_ids[len(request.prompt_ids) :]
        assert listener.heard[place] == [drawn[: end + 1] for end in range(len(drawn))]


def test_a_listener_may_have_enough_of_one_task(engine: Engine) -> None:
    class Enough(GenerationListener):
        def on_tokens(self, index: int, token_ids: list[int]) -> bool:
            return index == 0 and len(token_ids) >= 2

    request = task(engine, "Why", GREEDY, 1)
    short, whole = engine.generate([replace(request, streamed=True), request], Enough())
    assert short.token_ids == whole.token_ids[: len(request.prompt_ids) + 2]
    assert not short.finished


def test_work_that_nobody_waits_for_ends_early(kind: Kind, engine: Engine) -> None:
    request = task(engine, "Why", VARIED, seed=1)
    listener = Hearing(patience=1)
    with pytest.raises(AbandonedError):
        engine.generate([replace(request, streamed=True)], listener)
    assert listener.heard
    again = request if kind.reproducible else replace(request, sampling=GREEDY)
    assert ids(engine, again) == ids(engine, again)


def test_an_answer_ends_at_the_first_stop_and_its_neighbours_do_not(
    engine: Engine, learned: list[Joke]
) -> None:
    first, second, third, *_ = learned[3].answer.split()
    start = "What do you call a"
    stopping = replace(GREEDY, stop=("nowhere", third, second))
    plain = task(engine, start, GREEDY, seed=0)
    stopped, whole = engine.generate([task(engine, start, stopping, seed=0), plain])
    assert stopped.finished
    assert len(stopped.token_ids) < len(whole.token_ids)
    assert whole.token_ids[: len(stopped.token_ids)] == stopped.token_ids
    _, answer = engine.tokenizer.parse_partial(stopped.token_ids)
    assert stopping.cut(answer).split() == [first]
    assert ids(engine, plain) == [whole.token_ids]


def test_a_stop_in_the_question_ends_nothing(engine: Engine) -> None:
    request = task(engine, "What do you call a", GREEDY, seed=0)
    stopping = replace(request, sampling=replace(GREEDY, stop=("What",)))
    assert engine.generate([stopping]) == engine.generate([request])


@pytest.mark.usefixtures("promises_seeds")
def test_calls_of_many_threads_give_what_each_gives_alone(
    kind: Kind, engine: Engine, sample_jokes: list[Joke]
) -> None:
    if not kind.shared:
        pytest.skip("an engine in a thread has one caller")
    requests = [
        [task(engine, joke.question[: 2 * number], VARIED, seed) for seed in range(1 + number % 7)]
        for number, joke in enumerate(sample_jokes)
    ]
    alone = [ids(engine, *each) for each in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        assert list(pool.map(lambda each: ids(engine, *each), requests)) == alone
