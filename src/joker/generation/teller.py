"""The teller: turns a request into finished jokes, retrying those that fail.

The command line, servers, workers and the library all use it. It asks an engine for all jokes at
once, and again for those that were cut off, have no answer, ignore the prompt or repeat a training
joke. Of several candidates for a joke, `joker.generation.ranking` picks one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from math import isfinite

from joker.core.errors import GenerationError
from joker.core.fingerprints import Fingerprints, OriginalityEstimate, hash_text
from joker.core.joke import GeneratedJoke, Joke, punchline_key
from joker.core.tokenizer import REPLACEMENT_CHARACTER
from joker.engines.protocol import Completion, Engine, GenerationListener, is_greedy
from joker.engines.tasks import GenerationTask
from joker.generation.moderation import Moderator
from joker.generation.prompt import Prompt, printable
from joker.generation.ranking import rank
from joker.generation.request import GenerationRequest

_LAST_WORD = re.compile(r"\s*\S+$")

_Drafts = dict[Joke, int]
"""Distinct valid jokes, with the number of tokens drawn for each."""


class UntoldError(GenerationError):
    """Some of a request's jokes failed in all attempts, or moderation withholds the prompt.

    Attributes:
        told: The others, in order.
    """

    def __init__(self, message: str, told: list[GeneratedJoke]) -> None:
        super().__init__(message)
        self.told = told


class Teller:
    """Tells jokes with an engine.

    Args:
        engine: Continues prompts; the teller is as thread-safe as its engine.
        model: The model's name, which its jokes bear.
        fingerprints: Of the training jokes. If given, new jokes are preferred, and a training joke
            is told only if no attempt gives another.
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
        """Tell the jokes of a request, ``count`` of them.

        Args:
            request: What is asked for.
            listener: Follows the progress. It gets drafts only if there is one candidate, since
                which of several will be told is not known before the end.

        Raises:
            InputError: If the prompt is too long for the model.
            AbandonedError: If the listener asked to stop.
            UntoldError: If a joke failed in all attempts; it holds the others. At once if the
                prompt itself is withheld.
        """
        if is_greedy(request.sampling):
            request = replace(request, max_attempts=1, candidates=1)
        drafting = _Drafting(request, self.engine, self._moderator, listener)
        if drafting.withholds_prompt():
            raise UntoldError("the prompt itself is withheld by moderation; change it", [])
        told: dict[int, GeneratedJoke] = {}
        near_duplicates: dict[int, GeneratedJoke] = {}
        for attempt in range(request.max_attempts):
            missing = [number for number in range(request.count) if number not in told]
            if not missing:
                break
            for number, found in self._attempt(drafting, missing, attempt):
                (near_duplicates if found.original is False else told).setdefault(number, found)
                if listener and number in told:
                    listener.on_joke(number, found)
        for number in near_duplicates.keys() - told.keys():
            told[number] = near_duplicates[number]
            if listener:
                listener.on_joke(number, near_duplicates[number])
        jokes = [told[number] for number in sorted(told)]
        if len(jokes) < request.count:
            raise UntoldError(_explain(request, len(jokes), drafting.failures), jokes)
        return jokes

    def close(self) -> None:
        """Release the model; no further calls are possible."""
        self.engine.close()

    def _attempt(
        self, drafting: _Drafting, missing: Sequence[int], attempt: int
    ) -> Iterator[tuple[int, GeneratedJoke]]:
        """Yield the jokes that an attempt finds, a few at a time, so that the first come early."""
        size = drafting.request.jokes_at_once
        for start in range(0, len(missing), size):
            drafts = drafting.draw(missing[start : start + size], attempt)
            for number, picked in self._pick(drafts, drafting.punchlines).items():
                joke, score, estimate = picked
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
        """Return the best joke of each group and its rating, preferring new, real questions.

        A punchline among those told already is taken only if there is no other; the set grows.
        """
        known = {
            joke: self._fingerprints.estimate(joke) if self._fingerprints else None
            for group in drafts.values()
            for joke in group
        }
        new = {
            number: [j for j in group if not ((found := known[j]) and found.near_duplicate)]
            for number, group in drafts.items()
        }
        groups = [new[number] or list(drafts[number]) for number in drafts]
        if self.engine.tokenizer.template.punchline_first:
            # Behind a punchline, a model may write a statement, which is rarely a set-up.
            groups = [[joke for joke in each if "?" in joke.question] or each for each in groups]
        picked = {}
        for number, ranked in zip(drafts, rank(self.engine, groups), strict=True):
            fresh = (joke for joke in ranked if punchline_key(joke.answer) not in punchlines)
            joke = next(fresh, next(iter(ranked)))
            score = ranked[joke]
            punchlines.add(punchline_key(joke.answer))
            finite = score if score is not None and isfinite(score) else None
            picked[number] = joke, finite, known[joke]
        return picked


class _Drafting:
    """One request in progress: draws drafts and rejects faulty ones."""

    def __init__(
        self,
        request: GenerationRequest,
        engine: Engine,
        moderator: Moderator,
        listener: GenerationListener | None,
    ) -> None:
        self.request = request
        self.prompt = Prompt.read(request.prompt, engine.tokenizer.template)
        self.hint = ""
        self.prompt_ids: list[int] = []
        self.failures: Counter[str] = Counter()
        self.punchlines: set[str] = set()
        self.tokenizer = engine.tokenizer
        self._engine = engine
        self._moderator = moderator
        self._listener = listener

    def seed_of(self, number: int) -> int:
        """Return the seed of one of the jokes."""
        return _derive(self.request.seed, number)

    def draw(self, numbers: Sequence[int], attempt: int) -> dict[int, _Drafts]:
        """Draw all candidates of some jokes; return the valid ones of jokes that have any."""
        self.hint = self.prompt.hint(attempt)
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
        showing = _ShowsDrafts(self, numbers, self._listener) if self._listener else None
        completions = iter(self._engine.generate(tasks, showing))
        drafts: dict[int, _Drafts] = {}
        for number in numbers:
            for completion in islice(completions, candidates):
                outcome = self._read(completion)
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
        """Return whether no joke can pass because all contain the prompt.

        The list's rules alone decide: the classifier was trained on whole jokes.
        """
        return any(
            (self.request.safe and flag.severity == "offensive")
            or flag.category in self.request.exclude_categories
            for flag in self._moderator.match_rules(self.prompt.text)
        )

    def _read(self, completion: Completion) -> Joke | str:
        """Return the joke that a completion tells, or why it tells none."""
        if not completion.finished:
            return "cut off"
        # A joke that a stop has ended lacks its end token.
        joke = self.tokenizer.parse([*completion.token_ids, self.tokenizer.end_id])
        if joke:
            answer = self.request.sampling.cut(joke.answer)
            joke = Joke.from_text(printable(joke.question), printable(answer))
        # Behind a hint and an answer the question may be missing; then the hint looks like one.
        if joke is None or (self.prompt.is_hint and joke.question == self.hint):
            return "malformed"
        text = joke.question + joke.answer
        if REPLACEMENT_CHARACTER in text and REPLACEMENT_CHARACTER not in self.prompt.text:
            return "with invalid characters"
        joke = self.prompt.take_up(joke)
        if joke is None:
            return "that ignored the prompt"
        if self.withholds(joke.question, joke.answer):
            return "withheld by moderation"
        return joke


class _ShowsDrafts(GenerationListener):
    """Passes drafts on to another listener, word by word.

    The last word is held back because it may still grow. From the first word that moderation
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
            answer = drafting.request.sampling.cut(_whole_words(answer)).rstrip()
        else:
            question = _whole_words(question)
        question, answer = printable(question), printable(answer)
        draft = drafting.prompt.spell(question), answer
        if draft != self._shown.get(index, ("", "")) and drafting.prompt.fits_draft(question):
            self._shown[index] = draft
            if not drafting.withholds(*draft):
                self._listener.on_draft(self._numbers[index], *draft)
        return False

    def should_stop(self) -> bool:
        return self._listener.should_stop()


def _draw_seed(joke_seed: int, candidate: int, attempt: int) -> int:
    """Return the seed of one draw; the first candidate's do not depend on how many there are."""
    return _derive(_derive(joke_seed, 0, 0, candidate), 0, attempt)


def _derive(seed: int, *key: int) -> int:
    """Return an independent seed for each key; the seed itself where the key is all zeros."""
    if not any(key):
        return seed
    return hash_text(repr((seed, *key)))


def _whole_words(text: str) -> str:
    """Return a text without the word at its end."""
    return _LAST_WORD.sub("", text)


def _explain(request: GenerationRequest, told: int, failures: Counter[str]) -> str:
    count, most = request.count, request.max_attempts
    what = "the joke" if count == 1 else f"{count - told} of {count} jokes"
    attempts = "one attempt" if most == 1 else f"{most} attempts"
    reasons = ", ".join(f"{number} {reason}" for reason, number in failures.most_common())
    return (
        f"{what} could not be told in {attempts} (rejected drafts: {reasons}); "
        "try another prompt or seed, or raise max_new_tokens"
    )
