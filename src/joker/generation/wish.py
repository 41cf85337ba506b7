"""How people ask for a joke in their own words: "do you know a joke about cows?", "cat jokes".

A wish is an optional lead ("can you tell me"), qualifiers ("a", "good") and a noun ("joke"). A
topic may follow the noun ("a joke about cats") or stand before it ("a cat joke").
"""

from __future__ import annotations

import re

_MAX_CHARACTERS = 500
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
    *("great", "hilarious", "kid[- ]friendly", "knock[- ]knock", "lame", "little", "new", "nice"),
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


QUESTION_WORD = re.compile(rf"{_any_of(*_QUESTION_WORDS)}(?![a-z])")
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


def without_greeting(text: str) -> str:
    """Return what follows a greeting at the beginning of a text, such as "Hello there!"."""
    return _GREETING.sub("", text)


def topic_of(text: str) -> str | None:
    """Return the topic of a wish for a joke.

    Args:
        text: What somebody wrote, with single spaces.

    Returns:
        "" if any joke will do, and None if the text is no such wish but, for instance, the start
        of a question, or too long.
    """
    if len(text) > _MAX_CHARACTERS:
        return None
    text = without_greeting(text).rstrip(" .!?…")
    if not text:
        return ""
    match = next(filter(None, (wish.fullmatch(text) for wish in _WISHES)), None)
    return match and match.groupdict(default="").get("topic", "")
