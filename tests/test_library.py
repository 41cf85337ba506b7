"""The public face: what `joker` offers to other programs and to notebooks."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import joker
from joker import library
from joker.core.joke import GeneratedJoke
from joker.engines import Completion, GenerationTask
from joker.engines.stub import SCRIPT


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tell by the stub engine, and keep no model for other tests."""
    monkeypatch.setenv("JOKER_ENGINE", "stub")
    library._shared_joker.cache_clear()
    yield
    library._shared_joker.cache_clear()


def told(question: str, answer: str) -> GeneratedJoke:
    return GeneratedJoke(question, answer, seed=1, attempts=1)


def test_the_public_names_are_these() -> None:
    assert joker.__all__ == [
        "GeneratedJoke",
        "GenerationError",
        "InputError",
        "Joker",
        "JokerError",
        "Jokes",
        "Sampling",
        "__version__",
        "tell",
    ]
    assert all(getattr(joker, name) for name in joker.__all__)
    assert dir(joker) == sorted(joker.__all__)
    with pytest.raises(AttributeError, match="teller"):
        joker.teller  # type: ignore[attr-defined]  # noqa: B018


def test_tell_takes_these_arguments() -> None:
    arguments = {
        "prompt": "",
        "count": 1,
        "seed": None,
        "sampling": None,
        "candidates": None,
        "safe": True,
        "exclude_categories": (),
    }
    for function in (joker.tell, joker.Joker.tell):
        parameters = dict(inspect.signature(function).parameters)
        parameters.pop("self", None)
        assert {name: parameter.default for name, parameter in parameters.items()} == arguments
        by_place = [p.name for p in parameters.values() if p.kind is not p.KEYWORD_ONLY]
        assert by_place == ["prompt", "count"]
    streamed = inspect.signature(joker.Joker.stream).parameters
    assert set(streamed) - {"self"} == set(arguments) - {"seed"}


def test_jokes_begin_with_the_prompt_and_a_seed_tells_them_again() -> None:
    jokes = joker.tell("Why do", count=3, seed=7)
    assert isinstance(jokes, list)
    assert [joke.question.startswith("Why do") for joke in jokes] == [True] * 3
    assert jokes == joker.tell("Why do", count=3, seed=7)
    with joker.Joker() as own:
        assert own.tell("Why do", count=3, seed=7) == jokes


def test_sixteen_candidates_are_drafted_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    drafted: list[int] = []
    with joker.Joker() as own:
        generate = own._teller.engine.generate

        def count(tasks: Sequence[GenerationTask], *more: Any) -> list[Completion]:
            drafted.append(len(tasks))
            return generate(tasks, *more)

        monkeypatch.setattr(own._teller.engine, "generate", count)
        own.tell("Why do", seed=7)
        own.tell("Why do", seed=7, candidates=3)
    assert drafted == [16, 3]


def test_originality_is_estimated() -> None:
    (joke,) = joker.tell("Why do", seed=7)
    assert joke.original is True


def test_arguments_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(joker.InputError, match="count"):
        joker.tell(count=0)
    with pytest.raises(joker.InputError, match="category"):
        joker.tell(exclude_categories=["rude"])  # type: ignore[list-item]
    with pytest.raises(joker.JokerError, match="nowhere"):
        joker.Joker("nowhere")


def test_a_stream_yields_jokes_one_after_another_without_end() -> None:
    with joker.Joker() as own:
        jokes = list(itertools.islice(own.stream(), 5))
        assert len(list(own.stream("Why", 2, sampling=joker.Sampling(temperature=0)))) == 2
    assert {joke.pair for joke in jokes} <= set(SCRIPT)
    assert len({joke.seed for joke in jokes}) == 5


def test_threads_may_share_a_joker() -> None:
    jokes: list[joker.GeneratedJoke] = []
    with joker.Joker() as own:
        threads = [
            threading.Thread(target=lambda: jokes.extend(own.tell("Why", 5))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(jokes) == 20


def test_jokes_print_as_text() -> None:
    jokes = joker.Jokes([told("Why?", "Because."), told("Who?", "Me.")])
    assert str(jokes[0]) == "Why?\nBecause."
    assert str(jokes) == "Why?\nBecause.\n\nWho?\nMe."


def test_a_notebook_shows_jokes_as_paragraphs_without_markup_of_their_own() -> None:
    jokes = joker.Jokes([told("Is <b> & 'c'\nbold?", "Yes."), told("Who?", "Me.")])
    first = "<p>Is &lt;b&gt; &amp; &#x27;c&#x27;<br>bold?<br><strong>Yes.</strong></p>"
    assert jokes[0]._repr_html_() == first
    assert jokes._repr_html_() == f"{first}\n<p>Who?<br><strong>Me.</strong></p>"


def test_names_load_nothing_before_they_are_used() -> None:
    code = """
import sys, joker
print(joker.__version__, sorted(name for name in sys.modules if name.startswith("joker.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{joker.__version__} ['joker.version']\n"


@pytest.mark.integration
def test_the_bundled_model_is_told_from_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOKER_ENGINE")
    (joke,) = joker.tell("Why do cats", seed=7)
    assert joke.question.startswith("Why do cats")
    assert joke.answer
