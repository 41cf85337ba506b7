"""The teller: turns a request into finished jokes, retrying those that fail.

It generates all jokes in batches, and again those that were cut off, have no answer, ignore the
prompt or repeat a training joke. Of several candidates for a joke, `joker.generation.ranking` picks
one. Servers and workers use a `LiveTeller`, whose model can be replaced while it tells jokes.
"""

from __future__ import annotations

import logging
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from math import isfinite
from threading import Lock, Thread

from joker.core.errors import GenerationError, JokerError, PromptWithheldError
from joker.core.fingerprints import Fingerprints, OriginalityEstimate, hash_text
from joker.core.joke import GeneratedJoke, Joke, punchline_key
from joker.core.tokenizer import REPLACEMENT_CHARACTER
from joker.engines.protocol import Completion, Engine, GenerationListener, is_greedy
from joker.engines.tasks import GenerationTask
from joker.generation.moderation import Moderator
from joker.generation.prompt import Prompt, printable
from joker.generation.ranking import rank
from joker.generation.request import GenerationRequest

RELOAD_SIGNAL = signal.SIGUSR2
"""Celery uses SIGHUP and SIGUSR1, and closing a terminal sends SIGHUP."""

_CUT_OFF = "cut off"
_LAST_WORD = re.compile(r"\s*\S+$")

_log = logging.getLogger(__name__)

_Drafts = dict[Joke, int]
"""Distinct valid jokes, with the number of tokens generated for each."""


class MissingJokesError(GenerationError):
    """Some of a request's jokes failed in all attempts; ``jokes`` are those that succeeded."""

    def __init__(self, message: str, jokes: list[GeneratedJoke]) -> None:
        super().__init__(message)
        self.jokes = jokes


class Teller:
    """Tells jokes with an engine.

    Args:
        engine: Continues prompts; the teller is as thread-safe as its engine.
        model: The model's name.
        fingerprints: Fingerprints of the training jokes. If given, a near-duplicate of one is told
            only if no attempt gives an original joke.
        moderator: Decides which jokes to withhold; by default the package's own.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        model: str | None = None,
        fingerprints: Fingerprints | None = None,
        moderator: Moderator | None = None,
    ) -> None:
        self.engine = engine
        self.model = model
        self._fingerprints = fingerprints
        self._moderator = moderator or Moderator.default()

    def tell(
        self, request: GenerationRequest, listener: GenerationListener | None = None
    ) -> list[GeneratedJoke]:
        """Tell the jokes of a request.

        Args:
            request: What is asked for.
            listener: Follows the progress. It gets drafts only if there is one candidate: which of
                several will be told is known only at the end.

        Raises:
            InputError: If the prompt is too long for the model.
            AbandonedError: If the listener asked to stop.
            MissingJokesError: If a joke failed in all attempts.
            PromptWithheldError: If moderation withholds the prompt, and so every joke.
        """
        if is_greedy(request.sampling):
            request = replace(request, max_attempts=1, candidates=1)
        drafting = _Drafting(request, self.engine, self._moderator, listener)
        if drafting.withholds_prompt():
            raise PromptWithheldError
        told: dict[int, GeneratedJoke] = {}
        near_duplicates: dict[int, GeneratedJoke] = {}
        for attempt in range(request.max_attempts):
            missing = [number for number in range(request.count) if number not in told]
            if not missing:
                break
            for number, joke in self._attempt(drafting, missing, attempt):
                (near_duplicates if joke.original is False else told).setdefault(number, joke)
                if listener and number in told:
                    listener.on_joke(number, joke)
        for number in near_duplicates.keys() - told.keys():
            told[number] = near_duplicates[number]
            if listener:
                listener.on_joke(number, near_duplicates[number])
        jokes = [told[number] for number in sorted(told)]
        if len(jokes) < request.count:
            raise MissingJokesError(_explain(request, len(jokes), drafting.failures), jokes)
        return jokes

    def close(self) -> None:
        """Release the model; no further calls are possible."""
        self.engine.close()

    def _attempt(
        self, drafting: _Drafting, missing: Sequence[int], attempt: int
    ) -> Iterator[tuple[int, GeneratedJoke]]:
        """Yield the jokes of an attempt, one batch after another, so that the first come early."""
        size = drafting.request.jokes_per_batch
        for start in range(0, len(missing), size):
            drafts = drafting.draw(missing[start : start + size], attempt)
            picked = self._pick(drafts, drafting.punchlines)
            for number, (joke, score, estimate) in picked.items():
                yield (
                    number,
                    GeneratedJoke(
                        question=joke.question,
                        answer=joke.answer,
                        seed=drafting.seed_of(number),
                        attempts=attempt + 1,
                        prompt_tokens=len(drafting.prompt_ids),
                        tokens=drafts[number][joke],
                        original=not estimate.near_duplicate if estimate else None,
                        similarity=estimate.similarity if estimate else None,
                        score=score,
                        model=self.model,
                    ),
                )

    def _pick(
        self, drafts: Mapping[int, _Drafts], punchlines: set[str]
    ) -> dict[int, tuple[Joke, float | None, OriginalityEstimate | None]]:
        """Return the best draft of each joke, its rating and its originality.

        Original drafts with real questions are preferred, and punchlines that are not in
        ``punchlines``, to which the picked ones are added.
        """
        estimates = {
            joke: self._fingerprints.estimate(joke) if self._fingerprints else None
            for group in drafts.values()
            for joke in group
        }
        near_duplicates = {
            joke for joke, estimate in estimates.items() if estimate and estimate.near_duplicate
        }
        groups = [
            [joke for joke in group if joke not in near_duplicates] or list(group)
            for group in drafts.values()
        ]
        if self.engine.tokenizer.template.punchline_first:
            # After a punchline, a model may write a statement, which is rarely a set-up.
            groups = [[joke for joke in group if "?" in joke.question] or group for group in groups]
        picked = {}
        for number, ranked in zip(drafts, rank(self.engine, groups), strict=True):
            fresh = (joke for joke in ranked if punchline_key(joke.answer) not in punchlines)
            joke = next(fresh, next(iter(ranked)))
            punchlines.add(punchline_key(joke.answer))
            score = ranked[joke]
            finite = score if score is not None and isfinite(score) else None
            picked[number] = joke, finite, estimates[joke]
        return picked


class LiveTeller:
    """Tells jokes with a model that can be reloaded, for any number of threads.

    Requests in progress finish with the old model, so two models are in memory for a while.

    Args:
        open_teller: Loads the model, now and at each reload. The teller must be thread-safe.
    """

    def __init__(self, open_teller: Callable[[], Teller]) -> None:
        self._open_teller = open_teller
        self._current = open_teller()
        self._calls = {self._current: 0}
        self._lock = Lock()
        self._reloading = Lock()

    def tell(
        self, request: GenerationRequest, listener: GenerationListener | None = None
    ) -> list[GeneratedJoke]:
        """Tell the jokes of a request, as `Teller.tell` does."""
        with self._in_use() as teller:
            return teller.tell(request, listener)

    def reload(self) -> None:
        """Load the model again, for all further requests; if that fails, the old one stays."""
        with self._reloading:
            new = self._open_teller()
            with self._in_use(), self._lock:
                self._current = new
                self._calls[new] = 0
            _log.info("the model was reloaded", extra={"fields": {"model": new.model}})

    @contextmanager
    def _in_use(self) -> Iterator[Teller]:
        """Yield the current teller; afterwards close it if it was replaced and is now unused."""
        with self._lock:
            teller = self._current
            self._calls[teller] += 1
        try:
            yield teller
        finally:
            with self._lock:
                self._calls[teller] -= 1
                unused = teller is not self._current and not self._calls[teller]
                if unused:
                    del self._calls[teller]
            if unused:
                teller.close()


def on_reload_signal(reload: Callable[[], None] | None) -> None:
    """Call a function in a new thread whenever the process gets `RELOAD_SIGNAL`; log its errors.

    None only keeps the signal from ending the process.
    """

    def try_to_reload() -> None:
        try:
            if reload:
                reload()
        except JokerError as error:
            _log.error("the model was not reloaded: %s", error)
        except Exception:
            _log.exception("the model was not reloaded")

    def handle(*_: object) -> None:
        Thread(target=try_to_reload, name="reload", daemon=True).start()

    signal.signal(RELOAD_SIGNAL, handle)


class _Drafting:
    """A request in progress: draws drafts and rejects invalid ones."""

    def __init__(
        self,
        request: GenerationRequest,
        engine: Engine,
        moderator: Moderator,
        listener: GenerationListener | None,
    ) -> None:
        self.request = request
        self.prompt = Prompt.parse(request.prompt, engine.tokenizer.template)
        self.hint = ""
        self.prompt_ids: list[int] = []
        self.failures: Counter[str] = Counter()
        self.punchlines: set[str] = set()
        self.tokenizer = engine.tokenizer
        self._engine = engine
        self._moderator = moderator
        self._listener = listener

    def seed_of(self, number: int) -> int:
        """Return a joke's seed."""
        return _derive(self.request.seed, number)

    def draw(self, numbers: Sequence[int], attempt: int) -> dict[int, _Drafts]:
        """Draw the candidates of jokes; return the valid ones of each joke that has any."""
        self.hint = self.prompt.for_attempt(attempt)
        self.prompt_ids = self.tokenizer.encode_prompt(self.hint)
        candidates = self.request.candidates
        streamed = self._listener is not None and candidates == 1
        tasks = [
            GenerationTask(
                self.prompt_ids,
                self.request.sampling,
                _draw_seed(self.seed_of(number), candidate, attempt),
                streamed,
            )
            for number in numbers
            for candidate in range(candidates)
        ]
        listener = _DraftListener(self, numbers, self._listener) if self._listener else None
        completions = iter(self._engine.generate(tasks, listener))
        drafts: dict[int, _Drafts] = {}
        for number in numbers:
            for completion in islice(completions, candidates):
                outcome = self._parse(completion)
                if isinstance(outcome, Joke):
                    length = len(completion.token_ids) - len(self.prompt_ids)
                    drafts.setdefault(number, {})[outcome] = length
                else:
                    self.failures[outcome] += 1
        return drafts

    def withholds(self, question: str, answer: str) -> bool:
        """Return whether moderation withholds a joke or a draft."""
        return self._moderator.withholds(
            f"{question}\n{answer}",
            safe=self.request.safe,
            exclude_categories=self.request.exclude_categories,
        )

    def withholds_prompt(self) -> bool:
        """Return whether moderation withholds the prompt."""
        return self._moderator.withholds_prompt(
            self.prompt.text,
            safe=self.request.safe,
            exclude_categories=self.request.exclude_categories,
        )

    def _parse(self, completion: Completion) -> Joke | str:
        """Return a completion's joke, or why it is rejected."""
        if not completion.finished:
            return _CUT_OFF
        # A joke that a stop has ended lacks its end token.
        joke = self.tokenizer.parse([*completion.token_ids, self.tokenizer.end_id])
        if joke:
            answer = self.request.sampling.cut(joke.answer)
            joke = Joke.from_text(printable(joke.question), printable(answer))
        # If the question after a hint and an answer is missing, the hint is parsed as the question.
        if joke is None or (self.prompt.is_hint and joke.question == self.hint):
            return "malformed"
        text = joke.question + joke.answer
        if REPLACEMENT_CHARACTER in text and REPLACEMENT_CHARACTER not in self.prompt.text:
            return "with invalid characters"
        joke = self.prompt.accept(joke)
        if joke is None:
            return "that ignored the prompt"
        if self.withholds(joke.question, joke.answer):
            return "withheld by moderation"
        return joke


class _DraftListener(GenerationListener):
    """Passes drafts on to another listener, word by word.

    The last word is held back because it may be unfinished. From the first word that moderation
    withholds, nothing is shown.
    """

    def __init__(
        self, drafting: _Drafting, numbers: Sequence[int], listener: GenerationListener
    ) -> None:
        self._drafting = drafting
        self._numbers = numbers
        self._listener = listener
        self._shown: dict[int, tuple[str, str]] = {}

    def on_tokens(self, index: int, token_ids: list[int]) -> bool:
        if not self._listener.wants_drafts():
            return False
        drafting = self._drafting
        question, answer = drafting.tokenizer.parse_partial([*drafting.prompt_ids, *token_ids])
        if answer:
            answer = drafting.request.sampling.cut(_without_last_word(answer)).rstrip()
        else:
            question = _without_last_word(question)
        question, answer = printable(question), printable(answer)
        draft = drafting.prompt.restore_spelling(question), answer
        if draft != self._shown.get(index, ("", "")) and drafting.prompt.may_fit(question):
            self._shown[index] = draft
            if not drafting.withholds(*draft):
                self._listener.on_draft(self._numbers[index], *draft)
        return False

    def should_stop(self) -> bool:
        return self._listener.should_stop()


def _draw_seed(joke_seed: int, candidate: int, attempt: int) -> int:
    """Return the seed of a candidate; it does not depend on the number of candidates."""
    return _derive(_derive(joke_seed, 0, 0, candidate), 0, attempt)


def _derive(seed: int, *key: int) -> int:
    """Return an independent seed for each key; the seed itself where the key is all zeros."""
    if not any(key):
        return seed
    return hash_text(repr((seed, *key)))


def _without_last_word(text: str) -> str:
    return _LAST_WORD.sub("", text)


def _explain(request: GenerationRequest, told: int, failures: Counter[str]) -> str:
    count, max_attempts = request.count, request.max_attempts
    what = "no joke" if count == 1 else f"{count - told} of {count} jokes"
    verb = "worked out" if count == 1 else "did not work out"
    attempts = "one attempt" if max_attempts == 1 else f"{max_attempts} attempts"
    reasons = failures.most_common()
    advice = "raise max_new_tokens" if reasons[0][0] == _CUT_OFF else "try another prompt or seed"
    # The page and the bots leave out what is in parentheses.
    counted = ", ".join(f"{number} {reason}" for reason, number in reasons)
    return f"{what} {verb} (rejected drafts in {attempts}: {counted}); {advice}"
