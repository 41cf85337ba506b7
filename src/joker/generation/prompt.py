"""What a prompt asks for: the start of a question, a whole one, a topic, or any joke.

People also ask in their own words, as with "do you know a joke about cows?" or "cat jokes". In a
question-first template, every joke starts with the prompt. In a punchline-first one, the prompt is
a hint that the model may ignore; this module checks whether a joke follows it. The start of a
question is a better hint than a topic, so a topic is turned into one. For existing jokes, any
prompt but a whole question is such a hint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

from joker.core.joke import Joke
from joker.core.template import TEMPLATES, Template
from joker.generation.moderation import fold_words, inflect

_PUNCHLINE_FIRST = replace(TEMPLATES["original"], punchline_first=True)
_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]+")
_STOP_WORDS = frozenset({"a", "an", "and", "her", "his", "its", "my", "of", "or", "our", "s"})
_STOP_WORDS |= {"some", "the", "their", "your"}
# Plural endings and their singulars. The first match counts; an ending with several possible
# singulars is kept.
_PLURALS = {ending: ending for ending in ("ss", "us", "is", "as", "ics", "ies", "ves", "news")}
_PLURALS |= {"sses": "ss", "shes": "sh", "ches": "ch", "xes": "x", "atoes": "ato", "s": ""}

# A wish is an optional lead ("can you tell me"), qualifiers ("a", "good") and a noun ("joke"). A
# topic may follow the noun ("a joke about cats") or stand before it ("a cat joke").
_MAX_WISH_CHARACTERS = 500
"""Longer texts count as no wish: matching takes quadratic time."""

_GREETINGS = ("hi", "hello", "hey", "good morning", "good afternoon", "good evening")
_LEADS = (
    *_GREETINGS,
    *("please", "ok", "okay", "so", "now", "and", "just", "to", "me", "us"),
    *("can you", "could you", "would you", "will you", "can i", "could i", "may i"),
    *("i want", "i need", "i wanna", "i would like", "i['’]d like", "i would love", "i['’]d love"),
    *("do you know", "do you have", "have you got", "know", "got", "how about", "what about"),
    *("tell", "give", "make", "write", "say", "show", "send", "share", "hear", "have", "get"),
    *("invent", "let me", "let['’]s", "i['’]m bored", "i am bored"),
)
_QUALIFIERS = (
    *("a", "an", "any", "another", "few", "more", "of", "one", "other", "some", "the", "your"),
    *(r"\d+", "two", "three", "four", "five", "ten"),
    *("really", "very", "bad", "best", "better", "cheesy", "clean", "corny", "cute", "dad", "dark"),
    *("dirty", "favou?rite", "family[- ]friendly", "fresh", "fun", "funny", "funniest", "good"),
    *("great", "hilarious", "kid[- ]friendly", "knock[- ]knock", "lame", "little", "nice"),
    r"new(?! (?:delhi|england|jersey|mexico|orleans|years?|york|zealand)\b)",
    *("original", "quick", "random", "short", "silly", "simple", "stupid", "terrible", "different"),
)
_NOUNS = ("jokes?", "puns?", "riddles?", "gags?", "one[- ]?liners?")
_VAGUE_NOUNS = ("something", "anything")
_TALK = ("(?:tell|talk to) (?:me|us)",)
_PREPOSITIONS = ("about", "on", "with", "involving", "regarding", "for")
_READERS = ("kids?", "children", "adults", "grown-ups", "everyone", "everybody", "me", "us")
_CLOSINGS = ("please", "thanks", "thank you")
_FOR_ANY = (
    *("another", "another one", "one more", "again", "knock[- ]knock"),
    *("(?:make|let) (?:me|us) (?:laugh|smile|giggle)", "(?:a|some)(?: good)? laughs?"),
    *("cheer (?:me|us) up", "amuse (?:me|us)", "entertain (?:me|us)", "surprise (?:me|us)"),
    *("be funny", "i['’]m bored", "i am bored"),
)
_QUESTION_WORDS = (
    *("what", "why", "how", "who", "whom", "whose", "where", "when", "which", "did", "do", "does"),
    *("is", "are", "am", "was", "were", "can", "could", "have", "has", "had", "will", "would"),
    *("should", "may", "might", "must", "if"),
)
_NO_TOPICS = (
    *("a", "an", "the", "i", "it", "you", "this", "that", "no", "not", "at", "in"),
    *_PREPOSITIONS,
)


def _any_of(*words: str) -> str:
    return f"(?:{'|'.join(words)})"


_QUESTION_WORD = re.compile(rf"{_any_of(*_QUESTION_WORDS)}(?![a-z])")
"""How the start of a question begins, in lower case and without "n't"."""

_GREETING = re.compile(
    rf"\A\s*{_any_of(*_GREETINGS)}(?: there| joker)?(?:[ ,.!]*[,.!]\s*|\s*$)", re.IGNORECASE
)
_LEAD = rf"(?:{_any_of(*_LEADS)},? )*"
_WANTED = rf"(?:{_any_of(*_QUALIFIERS)} )*"
_NOUN = _any_of(*_NOUNS)
_VAGUE = rf"{_any_of(*_VAGUE_NOUNS)}(?: {_any_of('else', *_QUALIFIERS)})*"
_FOR_READERS = rf"(?: for (?:(?:my|our|the|little|small|young) )*{_any_of(*_READERS)})?"
_CLOSING = rf"(?:,? {_any_of(*_CLOSINGS)})*"
_TOPIC_WORD = rf"(?!{_any_of(*_NO_TOPICS, *_QUESTION_WORDS)}(?![a-z]))[^ ,.;:!?]+"
_ANY_JOKE = rf"{_WANTED}{_any_of(_NOUN, _VAGUE)}(?: of the day)?"
_JOKE = rf"{_WANTED}{_any_of('one', _NOUN, _VAGUE)}{_FOR_READERS},?"
_WISHES = [
    re.compile(_LEAD + wish + _FOR_READERS + _CLOSING, re.IGNORECASE)
    for wish in (
        _any_of(_ANY_JOKE, *_FOR_ANY),
        rf"{_any_of(_JOKE, *_TALK)} {_any_of(*_PREPOSITIONS)} (?P<topic>.+?)",
        rf"{_WANTED}(?P<topic>{_TOPIC_WORD}(?: {_TOPIC_WORD}){{,2}}) {_NOUN}",
    )
]


def printable(text: str) -> str:
    """Return text without control characters, except for line feeds."""
    return _UNPRINTABLE.sub(" ", text)


def asks_for_any_joke(text: str) -> bool:
    """Return whether a prompt is empty or asks for any joke, such as "tell me a joke"."""
    return topic_of(_one_line(text)) == ""


@dataclass(frozen=True)
class Prompt:
    """A parsed prompt.

    Attributes:
        text: The prompt without control characters and with single spaces; only the topic if it
            asks for a joke on one.
        is_hint: Whether the model may ignore it.
    """

    text: str
    is_hint: bool

    @classmethod
    def parse(cls, text: str, template: Template = _PUNCHLINE_FIRST) -> Prompt:
        """Parse a user's prompt for a model with this template; by default for existing jokes."""
        text = _one_line(text)
        if template.punchline_first:
            text = topic_of(text) or text
        if not template.is_hint(text):
            return cls(text, is_hint=False)
        text = text.rstrip(" .…")
        return cls(text, is_hint=bool(fold_words(text)))

    @property
    def is_start(self) -> bool:
        """Whether it is the start of a question rather than a topic."""
        return bool(_QUESTION_WORD.match(self.text.casefold().replace("n't", "")))

    def for_attempt(self, attempt: int) -> str:
        """Return the prompt for an attempt: the text, or the start of a question made from a topic.

        Jokes on a bare topic hardly ever work, but 12 to 19% of those with such a start do
        (docs/experiments-log.md, 2026-11-30). It does not suit every topic, so every other attempt
        gets the topic itself.
        """
        if not self.is_hint or self.is_start or attempt % 2:
            return self.text
        words = self.text.split()
        if len(words) == 1 and _singular(words[0]) != words[0]:
            words = [words[0].lower()]  # "Cats", as phones write it, is no name
        article = "" if words[0][0].isupper() else "the "
        while len(words) > 1 and words[0].casefold() in _STOP_WORDS:
            del words[0]
        return f"Why did {article}{' '.join([*words[:-1], _singular(words[-1])])}"

    def accept(self, joke: Joke) -> Joke | None:
        """Return a joke with the prompt's spelling, or None if it ignores the prompt."""
        if self.is_hint and not self.fits(joke):
            return None
        return Joke(self.restore_spelling(joke.question), joke.answer)

    def fits(self, joke: Joke) -> bool:
        """Return whether a joke follows the hint; False if the prompt is no hint."""
        if not self.is_hint:
            return False
        if self.is_start:
            return self._start.match(joke.question) is not None
        words = set(fold_words(f"{joke.question} {joke.answer}"))
        return all(_occurs(word, words) for word in self._topic)

    def restore_spelling(self, question: str) -> str:
        """Return a question that starts like the first hint with the start spelled as there."""
        match = self._start.match(question) if self.is_hint else None
        return self.for_attempt(0) + question[match.end() :] if match else question

    def may_fit(self, question: str) -> bool:
        """Return whether an unfinished question may still follow the prompt."""
        if not self.is_hint or not self.is_start:
            return True
        start, draft = self.text.casefold(), " ".join(question.split()).casefold()
        return start.startswith(draft) or draft.startswith(start)

    @cached_property
    def _topic(self) -> list[str]:
        return [word for word in fold_words(self.text) if word not in _STOP_WORDS]

    @cached_property
    def _start(self) -> re.Pattern[str]:
        return re.compile(r"\s+".join(map(re.escape, self.for_attempt(0).split())), re.IGNORECASE)


def without_greeting(text: str) -> str:
    """Return what follows a greeting at the beginning of a text, such as "Hello there!"."""
    return _GREETING.sub("", text)


def topic_of(text: str) -> str | None:
    """Return the topic of a wish for a joke, written with single spaces; "" if any joke will do.

    None means that the text is no wish but, for instance, the start of a question, or too long.
    """
    if len(text) > _MAX_WISH_CHARACTERS:
        return None
    text = without_greeting(text).rstrip(" .!?…")
    if not text:
        return ""
    match = next(filter(None, (wish.fullmatch(text) for wish in _WISHES)), None)
    return match and match.groupdict(default="").get("topic", "")


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _singular(word: str) -> str:
    """Return the singular of an English word, or the word if `_PLURALS` does not know it."""
    ending, singular = next((pair for pair in _PLURALS.items() if word.endswith(pair[0])), ("", ""))
    return word.removesuffix(ending) + singular


def _occurs(word: str, words: set[str]) -> bool:
    """Return whether a word, its plural or its singular is among words."""
    stem = word[:-3]
    singulars = words & {word[:-1], word[:-2], f"{stem}y", f"{stem}f", f"{stem}fe", f"{stem}man"}
    return not words.isdisjoint(inflect(word)) or any(
        word in inflect(singular) for singular in singulars
    )
