"""Jokes from Python: `joker.tell` and `joker.Joker`, for other programs and notebooks.

They work like ``joker tell --fresh``: settings come from the environment, offensive jokes are
withheld, and original jokes are preferred to near-duplicates of training jokes.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from threading import Lock

from joker.compose import open_teller
from joker.core.joke import GeneratedJoke, Sampling
from joker.engines import EngineKind
from joker.generation.moderation import Category, parse_categories
from joker.generation.request import GenerationRequest
from joker.settings import load_settings


class Jokes(list[GeneratedJoke]):
    """A list of jokes that prints well, also in a notebook."""

    def __str__(self) -> str:
        return "\n\n".join(map(str, self))

    def _repr_html_(self) -> str:
        return "\n".join(joke._repr_html_() for joke in self)


class Joker:
    """A loaded model that tells jokes, and a context manager.

    Calls from several threads run one after another.

    Args:
        model: Model folder; by default ``JOKER_MODEL``, else the bundled model.
        engine: What runs the model; by default ``JOKER_ENGINE``, else a remote server if
            ``JOKER_ENGINE_URL`` is set, else OpenVINO.

    Raises:
        ConfigError: If a setting in the environment cannot be used.
        ModelFolderError: If the model folder cannot be used.
        MissingDependencyError: If the engine's library is not installed.
    """

    def __init__(
        self, model: str | Path | None = None, *, engine: EngineKind | None = None
    ) -> None:
        self._settings = load_settings(model=model, engine=engine)
        self._teller = open_teller(self._settings)
        self._lock = Lock()

    def __enter__(self) -> Joker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the model; the joker cannot be used afterwards."""
        with self._lock:
            self._teller.close()

    def tell(
        self,
        prompt: str = "",
        count: int = 1,
        *,
        seed: int | None = None,
        sampling: Sampling | None = None,
        candidates: int | None = None,
        safe: bool = True,
        exclude_categories: Collection[Category] = (),
    ) -> Jokes:
        """Tell jokes that follow the prompt.

        Args:
            prompt: The start of a question, a whole question that ends with a question mark, or a
                topic; without it, the questions are invented, too.
            count: Number of jokes.
            seed: From 0 to 2**32 - 1; the same seed gives the same jokes. By default a random one.
            sampling: Sampling parameters; by default ``Sampling()``.
            candidates: Drafts per joke; the one that the model ranks highest is told. By default
                ``JOKER_CANDIDATES``, else 16.
            safe: Withhold offensive jokes.
            exclude_categories: Also withhold jokes on the topics of these moderation categories.

        Raises:
            InputError: If an argument is out of range, or the prompt is too long for the model.
            GenerationError: If no attempt produced an acceptable joke.
        """
        request = GenerationRequest(
            prompt=prompt,
            count=count,
            sampling=sampling or Sampling(),
            candidates=self._settings.candidates if candidates is None else candidates,
            max_attempts=self._settings.max_attempts,
            safe=safe,
            exclude_categories=parse_categories(exclude_categories),
            **({} if seed is None else {"seed": seed}),
        )
        with self._lock:
            return Jokes(self._teller.tell(request))

    def stream(
        self,
        prompt: str = "",
        count: int | None = None,
        *,
        sampling: Sampling | None = None,
        candidates: int | None = None,
        safe: bool = True,
        exclude_categories: Collection[Category] = (),
    ) -> Iterator[GeneratedJoke]:
        """Yield jokes one after another, each as soon as it is ready.

        The arguments and errors are those of `tell`; without ``count`` the stream never ends. Each
        joke gets a random seed.
        """
        for _ in itertools.count() if count is None else range(count):
            yield from self.tell(
                prompt,
                sampling=sampling,
                candidates=candidates,
                safe=safe,
                exclude_categories=exclude_categories,
            )


@cache
def _shared_joker() -> Joker:
    return Joker()


def tell(
    prompt: str = "",
    count: int = 1,
    *,
    seed: int | None = None,
    sampling: Sampling | None = None,
    candidates: int | None = None,
    safe: bool = True,
    exclude_categories: Collection[Category] = (),
) -> Jokes:
    """Tell jokes that follow the prompt, as `Joker.tell` does.

    The first call loads the model that the environment selects, which takes a few seconds; later
    calls reuse it.
    """
    return _shared_joker().tell(
        prompt,
        count,
        seed=seed,
        sampling=sampling,
        candidates=candidates,
        safe=safe,
        exclude_categories=exclude_categories,
    )
