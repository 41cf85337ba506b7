"""What a prompt asks for: the start of a question, a whole one, a topic, or nothing.

In a question-first template, every joke starts with the prompt. In a punchline-first one, it is a
hint that a model may ignore; this module checks whether a joke follows it. Starts of questions are
better hints than topics, so a topic becomes one. For jokes that are there already, any prompt but a
whole question is such a hint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

from joker.core.joke import Joke
from joker.core.template import TEMPLATES, Template
from joker.generation.moderation import fold_words, spell_numbers

_TAKES_HINTS = replace(TEMPLATES["original"], punchline_first=True)
_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]+")
_ASKS = (
    r"(?:(?:please|can you|could you) )*(?:(?:tell|give|make|write) )?(?:me |us )?"
    r"(?:(?:a|an|one|another|some) )?(?:(?:bad|clean|dad|funny|good|great|more|new|short|silly) )*"
)
_PLEASE = r"(?:,? please)?[ .!?]*"
_ASKS_FOR_A_TOPIC = re.compile(
    rf"{_ASKS}jokes? (?:about|on) (?P<topic>.+?){_PLEASE}", re.IGNORECASE
)
_ASKS_FOR_ANY = re.compile(
    rf"(?:{_ASKS}(?:jokes?|another(?: one)?|one more|again){_PLEASE})?", re.IGNORECASE
)
_QUESTION_WORDS = re.compile(
    "(?:what|why|how|who|whom|whose|where|when|which|did|do|does|is|are|am|was|were|can|could|have"
    "|has|had|will|would|should|may|might|must|if)(?![a-z])"
)
_LITTLE_WORDS = frozenset({"a", "an", "and", "her", "his", "its", "my", "of", "or", "our", "s"})
_LITTLE_WORDS |= {"some", "the", "their", "your"}
# Plural endings and what they are in the singular. The first match counts; where English has
# several singulars, the word stays as it is.
_PLURALS = {ending: ending for ending in ("ss", "us", "is", "as", "ics", "ies", "ves", "news")}
_PLURALS |= {"sses": "ss", "shes": "sh", "ches": "ch", "xes": "x", "atoes": "ato", "s": ""}


def printable(text: str) -> str:
    """Return text without control characters, except for line feeds."""
    return _UNPRINTABLE.sub(" ", text)


def asks_for_any(text: str) -> bool:
    """Return whether a prompt is empty or asks for any joke, such as "tell me a joke"."""
    return _ASKS_FOR_ANY.fullmatch(_one_line(text)) is not None


@dataclass(frozen=True)
class Prompt:
    """A prompt as a model gets it.

    Attributes:
        text: The prompt without control characters and with single spaces; only the topic if it
            asks for "a joke about" one.
        is_hint: Whether the model may ignore it.
    """

    text: str
    is_hint: bool

    @classmethod
    def read(cls, text: str, template: Template = _TAKES_HINTS) -> Prompt:
        """Read a user's prompt for a model with this template, or for jokes that are there."""
        text = _one_line(text)
        if template.punchline_first and (asked := _ASKS_FOR_A_TOPIC.fullmatch(text)):
            text = asked["topic"]
        if not template.is_hint(text):
            return cls(text, is_hint=False)
        text = text.rstrip(" .…")
        return cls(text, is_hint=bool(fold_words(text)))

    @property
    def is_start(self) -> bool:
        """Whether it is the start of a question rather than a topic."""
        return bool(_QUESTION_WORDS.match(self.text.casefold().replace("n't", "")))

    def hint(self, attempt: int) -> str:
        """Return the prompt for an attempt: the text, or the start of a question made from a topic.

        Readers found that jokes on a bare topic hardly ever work, but 12 to 19% of those with such
        a start (docs/experiments-log.md, 2026-11-30). It does not suit every topic, so every other
        attempt gets the topic itself.
        """
        if not self.is_hint or self.is_start or attempt % 2:
            return self.text
        words = self.text.split()
        article = "" if words[0][0].isupper() else "the "
        while len(words) > 1 and words[0].casefold() in _LITTLE_WORDS:
            del words[0]
        return f"Why did {article}{' '.join([*words[:-1], _singular(words[-1])])}"

    def take_up(self, joke: Joke) -> Joke | None:
        """Return a joke with the prompt's own spelling, or None if it ignores the prompt."""
        if self.is_hint and not self.fits(joke):
            return None
        return Joke(self.spell(joke.question), joke.answer)

    def fits(self, joke: Joke) -> bool:
        """Return whether a joke follows the hint; no joke does if there is none."""
        if not self.is_hint:
            return False
        if self.is_start:
            return self._start.match(joke.question) is not None
        told = set(fold_words(f"{joke.question} {joke.answer}"))
        return all(_occurs(word, told) for word in self._topic)

    def spell(self, question: str) -> str:
        """Return a question with its start spelled as in the first hint, if that is its start."""
        begins = self._start.match(question) if self.is_hint else None
        return self.hint(0) + question[begins.end() :] if begins else question

    def fits_draft(self, question: str) -> bool:
        """Return whether an unfinished question may still follow the prompt."""
        if not self.is_hint or not self.is_start:
            return True
        given, drawn = self.text.casefold(), " ".join(question.split()).casefold()
        length = min(len(given), len(drawn))
        return given[:length] == drawn[:length]

    @cached_property
    def _topic(self) -> list[str]:
        return [word for word in fold_words(self.text) if word not in _LITTLE_WORDS]

    @cached_property
    def _start(self) -> re.Pattern[str]:
        return re.compile(r"\s+".join(map(re.escape, self.hint(0).split())), re.IGNORECASE)


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _singular(word: str) -> str:
    """Return an English word in the singular where `_PLURALS` knows it."""
    ending, singular = next((pair for pair in _PLURALS.items() if word.endswith(pair[0])), ("", ""))
    return word.removesuffix(ending) + singular


def _occurs(word: str, told: set[str]) -> bool:
    """Return whether others include a word, in the singular or the plural."""
    singulars = told & {word[:-1], word[:-2], f"{word[:-3]}y"}
    return not told.isdisjoint(spell_numbers(word)) or any(
        word in spell_numbers(singular) for singular in singulars
    )
