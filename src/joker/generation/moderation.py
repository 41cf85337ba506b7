"""Moderation: what in a text may offend, in which category, and how severely.

The rules are in ``moderation.txt``, which explains its notation. A classifier decides which texts
on a topic are offensive although no single word is. ``docs/moderation.md`` lists their mistakes.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib import resources
from itertools import pairwise, product
from pathlib import Path
from typing import IO, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from joker.core.errors import InputError

Category = Literal["explicit", "nsfw", "sexist", "racist", "religious", "political", "dark"]
Severity = Literal["offensive", "topic"]

CATEGORIES: tuple[Category, ...] = get_args(Category)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)

_LIST = "moderation.txt"
_ALLOWED = "allowed"
_SECTION = re.compile(r"\[(@?[a-z]+)(?: ([a-z]+))?\]")
_TERM = re.compile(r"[a-z0-9]+\*?(?: [a-z0-9]+\*?)*|\*[a-z0-9]+\*")

_HOMOGLYPHS = {
    "a": "аαɑᴀ", "b": "вβʙ", "c": "сᴄ", "d": "ԁđᴅ", "e": "еεᴇ", "f": "ꜰ", "g": "ɡɢ", "h": "нһηħʜ",
    "i": "іιıɪ", "j": "јᴊ", "k": "кκᴋ", "l": "łʟ", "m": "мμᴍ", "n": "νɴ", "o": "оοøᴏ", "p": "рρᴘ",
    "q": "ԛ", "r": "гʀ", "s": "ѕꜱ", "t": "тτŧᴛ", "u": "υᴜ", "v": "ᴠ", "w": "ԝωᴡ", "x": "хχ",
    "y": "уγʏ", "z": "ζᴢ", "": "\u115f\u1160\u2800",  # the last are blanks
}  # fmt: skip
_TO_LATIN = {ord(sign): latin for latin, signs in _HOMOGLYPHS.items() for sign in signs} | {
    first + letter: chr(ord("a") + letter)
    for first in (0x1F150, 0x1F170, 0x1F1E6)  # enclosed letters, which NFKD leaves alone
    for letter in range(26)
}
_INVISIBLE = {"Cf", "Mn", "Me"}  # Unicode categories of zero-width characters, combining marks

_WORD = re.compile(r"[a-z0-9]+")
_LETTER = r"[a-z0-9@$!](?![a-z0-9])"
_SPACED = re.compile(rf"(?<![a-z0-9@$!]){_LETTER}(?:[^a-z0-9@$!]{{1,3}}{_LETTER}){{2,}}")
_BROKEN = re.compile(r"(?<=[a-z])[._|-](?=[a-z])")
_MASKED = re.compile(r"(?<![a-z*])(?:[a-z]+[*#@%_]+[a-z]+|[a-z]{1,2}[*#]{2,})(?![a-z*])")
_LEET = re.compile(  # a word that mixes letters with digits or signs; a final ! is punctuation
    r"(?<![a-z0-9@$!])(?:[0-9@$!]+[a-z]|[a-z]+(?:[0-9@$]|!(?=[a-z0-9@$])))"
    r"(?:[a-z0-9@$!]*[a-z0-9@$])?"
)
_LEETSPEAK = [str.maketrans("0134579@$!", f"o{i}eastgas{i}") for i in "il"]
_STRETCHED = re.compile(r"([aeiouy])\1{2,}|([a-z])\2{2,}")
_SHORTENED = [r"\1\2", r"\1\2\2", r"\1\1\2\2"]  # all to one, double consonants, all to two

WORD_BUCKETS = 1 << 15
RULE_BUCKETS = 1 << 13
BUCKETS = WORD_BUCKETS + RULE_BUCKETS
_CLASSIFIER = "offense.npz"
_STEM_LENGTH = 5
_MAX_CLASSIFIED_WORDS = 300
"""Of longer texts only the beginning counts: the classifier was trained on jokes."""

_Term = tuple[int, list[str], str]
"""The position of the word that a term is indexed by, its words, and its rule's part."""


class Flag(NamedTuple):
    """Why a text is flagged: the list's line that matched, and where it stands in the list.

    The severity ``topic`` marks a topic or tone that offends few.
    """

    category: Category
    severity: Severity
    term: str


class Labels(NamedTuple):
    """What the store keeps of a joke's flags."""

    categories: list[str]
    safe: bool


@dataclass(frozen=True, slots=True)
class OffenseClassifier:
    """Decides whether a joke on a topic is offensive: a linear model of hashed words and flags.

    Its weights reveal no joke. ``tools/train_offense_classifier.py`` trains it.

    Attributes:
        weights: One for each of the `BUCKETS`, in units of ``scale``.
        scale: The quantization step.
        threshold: Score from which a text counts as offensive.
    """

    weights: NDArray[np.int8]
    scale: float
    threshold: float

    @classmethod
    def bundled(cls) -> OffenseClassifier:
        """Load the package's own classifier."""
        with resources.files("joker.generation").joinpath(_CLASSIFIER).open("rb") as file:
            return cls.load(file)

    @classmethod
    def load(cls, file: Path | IO[bytes]) -> OffenseClassifier:
        """Load an ``.npz`` file."""
        with np.load(file, allow_pickle=False) as arrays:
            return cls(arrays["weights"], float(arrays["scale"]), float(arrays["threshold"]))

    def save(self, path: Path) -> None:
        """Save the classifier as an ``.npz`` file."""
        scale, threshold = np.float64(self.scale), np.float64(self.threshold)
        np.savez_compressed(path, weights=self.weights, scale=scale, threshold=threshold)

    def score(self, words: Sequence[str], flags: Iterable[Flag]) -> float:
        """Return how offensive a text seems, given its `fold_words` and the list's flags."""
        buckets, values = features(words, flags)
        return float(self.weights[buckets] @ values) * self.scale

    def is_offensive(self, words: Sequence[str], flags: Iterable[Flag]) -> bool:
        """Return whether a text's score reaches the threshold; without words none does."""
        return bool(words) and self.score(words, flags) >= self.threshold


def features(
    words: Sequence[str], flags: Iterable[Flag]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the buckets of a text's features and their values.

    Words, stems and pairs of neighboring words are divided by the square root of the number of
    words, so that long texts do not weigh more; the flags' features are not.
    """
    words = words[:_MAX_CLASSIFIED_WORDS]
    value = 3 / math.sqrt(len(words) or 1)
    of_words = {f"w {word}": value for word in words}
    of_words |= {
        f"s {word[:_STEM_LENGTH]}": value / 2 for word in words if len(word) >= _STEM_LENGTH
    }
    of_words |= {f"p {left} {right}": value / 2 for left, right in pairwise(words)}
    matched = set(flags)
    categories = {category for category, _, _ in matched}
    of_rules = {f"r {category} {term}" for category, _, term in matched}
    of_rules |= {f"c {category} {severity}" for category, severity, _ in matched}
    of_rules |= {f"v {severity}" for _, severity, _ in matched}
    of_rules.add(f"n {min(len(categories), 3)}")
    buckets = [zlib.crc32(name.encode()) % WORD_BUCKETS for name in of_words]
    buckets += [WORD_BUCKETS + zlib.crc32(name.encode()) % RULE_BUCKETS for name in of_rules]
    return np.array(buckets, np.int32), np.array([*of_words.values(), *[1.0] * len(of_rules)])


class Moderator:
    """Checks texts against a moderation list.

    Args:
        source: The list, in the notation of ``moderation.txt``.
        name: What the list is called in errors.
        classifier: Decides which mentions of topics are offensive; trained with this list.

    Raises:
        InputError: If a line is not in the notation.
    """

    def __init__(
        self, source: str, name: str = _LIST, *, classifier: OffenseClassifier | None = None
    ) -> None:
        self._classifier = classifier
        sections = _parse_sections(source, name)
        allowed = "|".join(map(_pattern, sections.get(_ALLOWED, []))) or "(?!)"
        self._allowed = re.compile(rf"\b(?:{allowed})\b")
        self._rules: list[tuple[Flag, frozenset[str]]] = []
        self._rules_of: defaultdict[str, list[int]] = defaultdict(list)  # by a rule's first part
        self._terms: defaultdict[str, list[_Term]] = defaultdict(list)  # by one of their words
        self._fragments: list[tuple[str, str]] = []
        self._lone_words: defaultdict[str, list[str]] = defaultdict(list)  # by first letter
        for category, severity in product(CATEGORIES, SEVERITIES):
            for line in sections.get(f"{category} {severity}", []):
                parts = line.split(" + ")
                self._rules_of[parts[0]].append(len(self._rules))
                self._rules.append((Flag(category, severity, line), frozenset(parts)))
        for part in dict.fromkeys(part for _, parts in self._rules for part in parts):
            for term in _terms(part, sections):
                self._add(term, part)
        self._longest_key = max(map(len, self._terms), default=0)
        self._terms_with = lru_cache(maxsize=1 << 13)(self._find_terms)

    @staticmethod
    @cache
    def default() -> Moderator:
        """Return the moderator of the package's own list, read once at the first call."""
        source = resources.files("joker.generation").joinpath(_LIST).read_text(encoding="utf-8")
        return Moderator(source, classifier=OffenseClassifier.bundled())

    @classmethod
    def from_file(cls, path: Path) -> Moderator:
        """Read a custom list, or raise an `InputError`."""
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the moderation list {path}: {error}") from error
        return cls(source, str(path))

    def check(self, text: str) -> tuple[Flag, ...]:
        """Return all flags of a text in the order of `CATEGORIES`.

        If the classifier finds a text on a topic offensive, all of its flags are offensive.
        """
        flags = self.match_rules(text)
        if (
            self._classifier
            and any(flag.severity == "topic" for flag in flags)
            and self._classifier.is_offensive(fold_words(text), flags)
        ):
            return tuple(flag._replace(severity="offensive") for flag in flags)
        return flags

    def label(self, text: str) -> Labels:
        """Return the categories of a text, and whether it passes in safe mode."""
        flags = self.check(text)
        return Labels(
            categories=sorted({flag.category for flag in flags}),
            safe=all(flag.severity != "offensive" for flag in flags),
        )

    def match_rules(self, text: str) -> tuple[Flag, ...]:
        """Return the flags that the list's rules raise, without the classifier's."""
        parts = {part for reading in self._readings(text) for part in self._parts(reading)}
        rules = sorted(rule for part in parts for rule in self._rules_of.get(part, ()))
        return tuple(self._rules[rule][0] for rule in rules if self._rules[rule][1] <= parts)

    def withholds(
        self, text: str, *, safe: bool = True, exclude_categories: Collection[Category] = ()
    ) -> bool:
        """Return whether to withhold a joke, given as its question, a line feed and its answer.

        That is the case if ``safe`` and a flag is offensive, or if a flag's category is excluded.
        """
        if not safe and not exclude_categories:
            return False
        return _is_withheld(self.check(text), safe=safe, exclude_categories=exclude_categories)

    def withholds_prompt(
        self, text: str, *, safe: bool = True, exclude_categories: Collection[Category] = ()
    ) -> bool:
        """Return whether to withhold a prompt, and so every joke that contains it.

        The list's rules alone decide: the classifier was trained on whole jokes.
        """
        flags = self.match_rules(text)
        return _is_withheld(flags, safe=safe, exclude_categories=exclude_categories)

    def _add(self, term: str, part: str) -> None:
        """Index a term, singular and plural, by its longest word, usually the rarest one."""
        if term.startswith("*"):
            self._fragments.append((term.strip("*"), part))
            self._lone_words[term[1]].append(term[1:])
            return
        *head, last = term.split()
        for form in [last] if last.endswith("*") else inflect(last):
            words = [*head, form]
            key = max(words, key=len)
            self._terms[key].append((words.index(key), words, part))
            if not head and part == term:
                self._lone_words[form[0]].append(form)

    def _find_terms(self, word: str) -> list[_Term]:
        """Return the terms indexed by a word or by a stem of it."""
        ends = range(1, min(len(word), self._longest_key) + 1)
        keys = [word, *(f"{word[:end]}*" for end in ends)]
        return [term for key in keys for term in self._terms.get(key, ())]

    def _parts(self, reading: str) -> Iterator[str]:
        """Yield the parts of rules that occur in a reading."""
        words = self._allowed.sub(" ", reading).split()
        for position, word in enumerate(words):
            for offset, term, part in self._terms_with(word):
                if len(term) == 1 or _matches_at(position - offset, term, words):
                    yield part
        text = " ".join(words)
        yield from (part for fragment, part in self._fragments if fragment in text)

    def _readings(self, text: str) -> set[str]:
        """Return the words that a text may spell, if some are disguised; each as one string."""
        plain = _fold(text)
        spelled = _BROKEN.sub("", _SPACED.sub(_join, plain))
        latin = {_LEET.sub(partial(_translate, table), spelled) for table in _LEETSPEAK}
        readings = {_STRETCHED.sub(short, text) for text in latin for short in _SHORTENED}
        readings |= {plain, _MASKED.sub(self._unmask, plain)}
        return {" ".join(_WORD.findall(reading)) for reading in readings}

    def _unmask(self, masked: re.Match[str]) -> str:
        """Return the first listed word that a masked one may stand for, or the masked one."""
        shape = re.sub("[^a-z]", ".", masked[0])
        for word in self._lone_words[shape[0]]:
            stem = word.rstrip("*")
            if re.fullmatch(shape[: len(stem)] if word.endswith("*") else shape, stem):
                return stem
        return masked[0]


def _is_withheld(
    flags: Iterable[Flag], *, safe: bool, exclude_categories: Collection[Category]
) -> bool:
    return any(
        (safe and flag.severity == "offensive") or flag.category in exclude_categories
        for flag in flags
    )


def fold_words(text: str) -> list[str]:
    """Return a text's words in lowercase, with letters that look like Latin ones replaced."""
    return _WORD.findall(_fold(text))


def parse_categories(names: Iterable[str]) -> tuple[Category, ...]:
    """Return the named categories in the order of `CATEGORIES`, or raise an `InputError`."""
    names = list(names)
    for name in names:
        if name not in CATEGORIES:
            raise InputError(f"there is no category {name!r}; choose {', '.join(CATEGORIES)}")
    return tuple(category for category in CATEGORIES if category in names)


def _parse_sections(source: str, name: str) -> dict[str, list[str]]:
    """Return the lines of each section of a list, checked and without comments."""
    sections: dict[str, list[str]] = {}
    section = ""
    for number, raw in enumerate(source.splitlines(), 1):
        line = " ".join(raw.partition("#")[0].replace("'", " ").split())
        if header := _SECTION.fullmatch(line):
            section = " ".join(filter(None, header.groups()))
            if error := _header_error(*header.groups()):
                raise InputError(f"{name}, line {number}: {error}")
            sections.setdefault(section, [])
        elif line:
            if not section:
                raise InputError(f"{name}, line {number}: {line!r} comes before any [section]")
            groups = [key for key in sections if key.startswith("@")]
            is_rule = section != _ALLOWED and not section.startswith("@")
            for term in re.split(r" [+|] ", line) if is_rule else [line]:
                if not _TERM.fullmatch(term) and not (is_rule and term in groups):
                    raise InputError(f"{name}, line {number}: cannot read {term!r}")
            sections[section].append(line)
    return sections


def _header_error(section: str, severity: str | None) -> str:
    """Return what is wrong with a section's header, or an empty text."""
    if section.startswith("@") or section == _ALLOWED:
        return f"[{section}] takes no severity; write [{section}]" if severity else ""
    if section not in CATEGORIES:
        return f"there is no category {section!r}; choose {', '.join(CATEGORIES)}"
    if severity is None:
        return f"[{section}] lacks a severity; write [{section} offensive] or [{section} topic]"
    if severity not in SEVERITIES:
        return f"there is no severity {severity!r}; choose {', '.join(SEVERITIES)}"
    return ""


def _terms(part: str, sections: dict[str, list[str]]) -> Iterator[str]:
    """Yield the terms of a rule's part, including those of its groups."""
    for term in part.split(" | "):
        yield from sections[term] if term.startswith("@") else [term]


def inflect(word: str) -> list[str]:
    """Return a word and its possible plurals."""
    forms = [word, f"{word}s"]
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        forms.append(f"{word}es")
    elif word.endswith("y"):
        forms.append(f"{word[:-1]}ies")
    elif word.endswith("man"):
        forms.append(f"{word[:-3]}men")
    elif word.endswith(("f", "fe")):
        forms.append(f"{word.removesuffix('e')[:-1]}ves")
    return forms


def _pattern(term: str) -> str:
    """Return a term as a regular expression; its last word may be a plural."""
    return term.replace("*", "[a-z0-9]*") + "(?:e?s)?"


def _matches_at(start: int, term: list[str], words: list[str]) -> bool:
    """Return whether the words from an index on match a term; a star stands for any ending."""
    return 0 <= start <= len(words) - len(term) and all(
        word.startswith(pattern[:-1]) if pattern.endswith("*") else word == pattern
        for pattern, word in zip(term, words[start : start + len(term)], strict=True)
    )


def _fold(text: str) -> str:
    """Return a text in lowercase, with letters that look like Latin ones replaced."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    visible = (sign for sign in folded if unicodedata.category(sign) not in _INVISIBLE)
    return "".join(visible).translate(_TO_LATIN)


def _join(spaced: re.Match[str]) -> str:
    """Return spaced letters as a word, also without the first or last, which may be "a" or "I"."""
    word = re.sub(r"[^a-z0-9@$!]", "", spaced[0])
    return f"{word} {word[1:]} {word[:-1]}"


def _translate(table: dict[int, int], word: re.Match[str]) -> str:
    return word[0].translate(table)
