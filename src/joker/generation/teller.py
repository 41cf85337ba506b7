"""The teller: from the start of a question to whole jokes, by as many tries as it takes.

Every entrance tells its jokes with it. It asks an engine for all jokes at once and again for
those that came out unfinished, without an answer, or as a joke that the model learnt from.
Where it may draw several candidates for a joke, `joker.generation.ranking` picks one. How text
becomes tokens and a joke again is the template's matter (`joker.core.tokenizer`).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from joker.core.errors import GenerationError, InputError
from joker.core.fingerprints import Fingerprints, OriginalityEstimate
from joker.core.joke import Joke
from joker.core.sampling import Sampling
from joker.engines.protocol import Completion, Engine, Hear, Request, is_greedy
from joker.generation.moderation import Category, Moderator
from joker.generation.ranking import pick_best

DEFAULT_TRIES = 5
DEFAULT_CANDIDATES = 16
"""What the entrances ask for; docs/experiments.md has what it does."""

_SEEDS = 2**32
_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]+")
_LAST_WORD = re.compile(r"\s*\S+$")
_BROKEN_UTF8 = "\ufffd"

_Withholds = Callable[[str, str], bool]
"""Whether a question and an answer are to be kept back."""


@dataclass(frozen=True, slots=True)
class ToldJoke:
    """A joke and how it came about.

    Attributes:
        joke: The joke; it holds no control characters but line feeds.
        seed: Tells it again: the same prompt, sampling, candidates and seed for a single joke.
        tries: How many times the engine was asked for its candidates.
        prompt_tokens: Tokens that the model was given.
        tokens: Tokens that were drawn for it, its end included; not those of other candidates.
        recognition: How near it comes to the jokes that the model learnt from; None where those
            are not known.
    """

    joke: Joke
    seed: int
    tries: int
    prompt_tokens: int
    tokens: int
    recognition: OriginalityEstimate | None = None

    @property
    def near_duplicate(self) -> bool:
        """Whether it is known to be one of the jokes that the model learnt from."""
        return self.recognition is not None and self.recognition.near_duplicate


class Watch(Protocol):
    """Follows jokes while they are told."""

    def partial(self, index: int, question: str, answer: str) -> None:
        """Hear how much of a joke is there so far; another try begins anew."""

    def told(self, index: int, joke: ToldJoke) -> None:
        """Hear a joke as soon as it is certain."""

    def stopped(self) -> bool:
        """Say whether nobody waits for the jokes any more."""


class UntoldError(GenerationError):
    """Some of the jokes asked for were not told within the tries.

    Attributes:
        told: Those that were, in order.
    """

    def __init__(self, message: str, told: list[ToldJoke]) -> None:
        super().__init__(message)
        self.told = told


class Teller:
    """Tells jokes with an engine.

    Args:
        engine: What continues prompts; where it takes many threads, so does the teller.
        fingerprints: Of the jokes that the model learnt from. Where they are known, a new joke is
            preferred; one of these is told again only where no try brings another.
        moderator: What withholds jokes; by default the package's own.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        fingerprints: Fingerprints | None = None,
        moderator: Moderator | None = None,
    ) -> None:
        self._engine = engine
        self._fingerprints = fingerprints
        self._moderator = moderator or Moderator.default()

    def tell(
        self,
        prompt: str = "",
        count: int = 1,
        sampling: Sampling | None = None,
        seed: int | None = None,
        tries: int = DEFAULT_TRIES,
        candidates: int = 1,
        safe: bool = True,
        exclude_categories: Collection[Category] = (),
        watch: Watch | None = None,
    ) -> list[ToldJoke]:
        """Tell jokes whose questions begin with the prompt.

        Args:
            prompt: The start of a question; a whole one if it ends with a question mark; or
                nothing, and the question is invented too. Runs of white space and control
                characters in it count as one space.
            count: How many jokes.
            sampling: How tokens are drawn; by default as `Sampling` says.
            seed: From 0 to 2**32 - 1; decides all jokes. The first joke's is the seed itself, so
                more jokes begin with the same ones. None draws one.
            tries: How many times the engine is asked for each joke at most. When the likeliest
                token is always taken, another try would change nothing and there is one.
            candidates: How many jokes are drawn at each try for every joke that is told; of
                those without a fault the one is told whose answer fits its question best. With 1
                the model scores nothing.
            safe: Draw anew a joke that moderation flags as offensive.
            exclude_categories: Also draw anew one that it flags for one of these categories,
                whatever the severity.
            watch: Told how far the jokes are. Of several candidates nobody knows yet which will be
                told, so it hears of unfinished ones only where there is 1.

        Returns:
            ``count`` jokes.

        Raises:
            InputError: If a number is out of range or the prompt is too long for the model.
            AbandonedError: If the watch said that nobody waits any more.
            UntoldError: If a joke was not told within the tries; it holds the others.
        """
        for name, number in (("count", count), ("tries", tries), ("candidates", candidates)):
            if number < 1:
                raise InputError(f"{name} must be 1 or more, not {number}")
        if seed is None:
            seed = draw_seed()
        elif not 0 <= seed < _SEEDS:
            raise InputError(f"seed must lie between 0 and {_SEEDS - 1}, not {seed}")
        sampling = sampling or Sampling()
        prompt = " ".join(_printable(prompt).split())
        if is_greedy(sampling):
            tries = candidates = 1

        def withholds(question: str, answer: str) -> bool:
            return self._moderator.withholds(
                f"{question}\n{answer}", safe=safe, exclude_categories=exclude_categories
            )

        prompt_tokens = len(self._engine.tokenizer.encode_prompt(prompt))
        seeds = [_derive(seed, number) for number in range(count)]
        told: dict[int, ToldJoke] = {}
        known: dict[int, ToldJoke] = {}
        failures: Counter[str] = Counter()
        for round_number in range(tries):
            missing = [number for number in range(count) if number not in told]
            if not missing:
                break
            requests = [
                Request(prompt, sampling, _draw_seed(seeds[number], candidate, round_number))
                for number in missing
                for candidate in range(candidates)
            ]
            hear = None
            if watch and candidates == 1:
                hear = self._show(watch, prompt, missing, sampling, withholds)
            stopped = watch.stopped if watch else None
            completions = iter(self._engine.generate(requests, hear=hear, stopped=stopped))
            faultless: dict[int, list[Joke]] = {}
            lengths: dict[Joke, int] = {}
            for number in missing:
                for completion in islice(completions, candidates):
                    outcome = self._read(completion, prompt, sampling, withholds)
                    if isinstance(outcome, Joke):
                        faultless.setdefault(number, []).append(outcome)
                        lengths[outcome] = len(completion.token_ids) - prompt_tokens
                    else:
                        failures[outcome] += 1
            best = self._pick(faultless)
            for number, (joke, recognition) in best.items():
                found = ToldJoke(
                    joke,
                    seeds[number],
                    round_number + 1,
                    prompt_tokens,
                    lengths[joke],
                    recognition,
                )
                (known if found.near_duplicate else told).setdefault(number, found)
                if watch and number in told:
                    watch.told(number, found)
        for number in known.keys() - told.keys():
            told[number] = known[number]
            if watch:
                watch.told(number, known[number])
        jokes = [told[number] for number in sorted(told)]
        if len(jokes) < count:
            raise UntoldError(_explain(count - len(jokes), count, tries, failures), jokes)
        return jokes

    def _show(
        self,
        watch: Watch,
        prompt: str,
        numbers: Sequence[int],
        sampling: Sampling,
        withholds: _Withholds,
    ) -> Hear:
        """Return what shows a watch the jokes that are being drawn, word by word.

        The last word may still grow into another, so it is held back; what is to be
        withheld is not shown, nor what comes behind it.
        """
        tokenizer = self._engine.tokenizer
        prompt_ids = tokenizer.encode_prompt(prompt)
        shown: dict[int, tuple[str, str]] = {}

        def hear(place: int, token_ids: list[int]) -> None:
            question, answer = tokenizer.parse_start([*prompt_ids, *token_ids])
            if answer:
                answer = sampling.cut(_whole_words(answer)).rstrip()
            else:
                question = _whole_words(question)
            draft = _printable(question), _printable(answer)
            if draft == shown.get(place, ("", "")):
                return
            shown[place] = draft
            if not withholds(*draft):
                watch.partial(numbers[place], *draft)

        return hear

    def _pick(
        self, groups: Mapping[int, Sequence[Joke]]
    ) -> dict[int, tuple[Joke, OriginalityEstimate | None]]:
        """Return the best joke of each group, of the new ones where there are any."""
        known: dict[Joke, OriginalityEstimate | None] = {
            joke: self._fingerprints.estimate(joke) if self._fingerprints else None
            for group in groups.values()
            for joke in group
        }
        new = {
            number: [
                joke for joke in group if not ((found := known[joke]) and found.near_duplicate)
            ]
            for number, group in groups.items()
        }
        best = pick_best(self._engine, [new[number] or groups[number] for number in groups])
        return {number: (joke, known[joke]) for number, joke in zip(groups, best, strict=True)}

    def _read(
        self,
        completion: Completion,
        prompt: str,
        sampling: Sampling,
        withholds: _Withholds,
    ) -> Joke | str:
        """Return the joke that a completion tells, or why it tells none."""
        if not completion.finished:
            return "were cut off before their end"
        # A joke that a stop has ended lacks its end token.
        ids = [*completion.token_ids, self._engine.tokenizer.end_id]
        joke = self._engine.tokenizer.parse(ids)
        if joke:
            answer = sampling.cut(joke.answer)
            joke = Joke.from_text(_printable(joke.question), _printable(answer))
        if joke is None:
            return "had no question or no single answer"
        if _BROKEN_UTF8 in (joke.question + joke.answer) and _BROKEN_UTF8 not in prompt:
            return "held broken characters"
        if withholds(joke.question, joke.answer):
            return "were withheld by moderation"
        return joke


def draw_seed() -> int:
    """Return a seed for `Teller.tell` that nobody chose."""
    return secrets.randbelow(_SEEDS)


def _draw_seed(joke_seed: int, candidate: int, round_number: int) -> int:
    """Return the seed of one draw; the first candidate's do not depend on how many there are."""
    return _derive(_derive(joke_seed, 0, 0, candidate), 0, round_number)


def _derive(seed: int, *key: int) -> int:
    """Return an independent seed for each key; the seed itself where the key is all zeros."""
    if not any(key):
        return seed
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def _printable(text: str) -> str:
    """Return text whose control characters, line feeds aside, cannot reach a terminal."""
    return _UNPRINTABLE.sub(" ", text)


def _whole_words(text: str) -> str:
    """Return a text without the word at its end."""
    return _LAST_WORD.sub("", text)


def _explain(untold: int, count: int, tries: int, failures: Counter[str]) -> str:
    what = "the joke" if count == 1 else f"{untold} of {count} jokes"
    rounds = "one try" if tries == 1 else f"{tries} tries"
    reasons = ", ".join(f"{number} {reason}" for reason, number in failures.most_common())
    return (
        f"{what} could not be told in {rounds}: of all attempts {reasons}; "
        "allow more tries or more new tokens, or change the prompt"
    )
