"""Cleaning: raw Reddit text in, readable text out, with the name of every rule that changed it.

Rules only remove characters or replace them with plainer ones. `clean` applies all of them until
nothing changes, so cleaning is idempotent.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from itertools import cycle
from typing import NamedTuple

from joker.core.errors import import_optional

ftfy = import_optional("ftfy", "cleaning jokes needs")


class Cleaned(NamedTuple):
    """Cleaned text and the names of the rules that changed it."""

    text: str
    changes: frozenset[str]


def clean(text: str) -> Cleaned:
    """Return the text as a person would have typed it, with its line breaks."""
    if _ORDINARY.fullmatch(text):
        return Cleaned(text, frozenset())
    changes: set[str] = set()
    unchanged = 0
    for name, rule in cycle(RULES.items()):
        after = rule(text)
        if after == text:
            unchanged += 1
        else:
            text, unchanged = after, 0
            changes.add(name)
        if unchanged >= len(RULES):
            break
    return Cleaned(text, frozenset(changes))


def flatten(text: str) -> str:
    """Return the text as one line."""
    return " ".join(text.split())


# A single line of words and common punctuation, which no rule changes. Most titles and punchlines
# are such lines; for others, every rule first checks cheaply whether it applies.
_WORDS = r"[a-zA-Z0-9!\"$%',.?@]+"
_ORDINARY = re.compile(rf"(?!.*www\.){_WORDS}(?:[ -]{_WORDS})*")


# --- encoding and HTML ----------------------------------------------------------------------------

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ue000-\uf8ff\ufffd]")


def _fix_encoding(text: str) -> str:
    # ftfy repairs mojibake and C1 controls only; the rules below normalize quotes, widths,
    # entities and line breaks in their own way.
    if not text.isascii():
        text = str(ftfy.fix_encoding(text))
    return text if text.replace("\n", "").isprintable() else _UNPRINTABLE.sub("", text)


def _unescape_html(text: str) -> str:
    return html.unescape(text) if "&" in text else text


# --- Unicode --------------------------------------------------------------------------------------

# Zero-width characters, soft hyphens, directional marks, byte order marks; joiners only next to
# ASCII, because emoji and some scripts need them.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffc\U000e0000-\U000e007f]"
    "|(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])|[\u200c\u200d]{2,}"
)
# Look-alikes of ASCII: full width and mathematical letters.
_LOOKALIKES = re.compile("[\uff01-\uff5e\U0001d400-\U0001d7ff]+")
_STACKED_MARKS = re.compile("([\u0300-\u036f]{2})[\u0300-\u036f]+")
_PLAINER = {
    **dict.fromkeys("‘’‚‛′´", "'"),
    **dict.fromkeys("“”„‟″", '"'),
    **dict.fromkeys("‐‑", "-"),
    **dict.fromkeys("\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007", " "),
    **dict.fromkeys("\u2008\u2009\u200a\u202f\u205f\u3000", " "),
    **dict.fromkeys("\u2028\u2029", "\n"),
    "…": "...",
}
_NOT_ASCII = re.compile("[^\x00-\x7f]+")


def _plain_unicode(text: str) -> str:
    text = text.replace("`", "'")
    if text.isascii():
        return text
    text = _NOT_ASCII.sub(_plain_run, text)
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def _plain_run(match: re.Match[str]) -> str:
    run = match[0]
    if plain := _PLAINER.get(run):
        return plain
    run = _LOOKALIKES.sub(lambda found: unicodedata.normalize("NFKC", found[0]), run)
    run = _STACKED_MARKS.sub(r"\1", _INVISIBLE.sub("", run))
    return "".join(_PLAINER.get(character, character) for character in run)


# --- Markdown and links ---------------------------------------------------------------------------

_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?: +\"[^\"\n]*\")? *\)")
_SPOILER = re.compile(r">!(.{0,1000}?)!<", re.DOTALL)
# A line drawn across the page, or dots to scroll past before the punchline.
_RULE_LINE = re.compile(r"^(?:[-*_=.] *)+$", re.MULTILINE)
_RULE_STARTS = ("\n-", "\n*", "\n_", "\n=", "\n.")
_QUOTE_MARK = re.compile(r"^[ \t]*(?:>[ \t]?)+(?!!)", re.MULTILINE)
_HEADING = re.compile(
    r"^[ \t]*#+(?=[ *#])[# \t]*|(?<=[^\s#])#*[ \t]*##[ \t]*$|(?<=\*)#+$", re.MULTILINE
)
_SUPERSCRIPT = re.compile(r"\^{2,}|(?<!\S)\^[^\s\d]\S*")
_ESCAPE = re.compile(r"\\([\\*_^~#>|()\[\]{}.!+-])")
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\[\]]+", re.IGNORECASE)


def _emphasis(mark: str) -> re.Pattern[str]:
    """Match text between two marks, except inside a word or an emoticon."""
    char = re.escape(mark[0])
    return re.compile(
        rf"(?<![^\s(\[\"'*_~#-]){re.escape(mark)}(?=[^\s{char}])([^\n]{{0,300}}?[^\s{char}\\]){re.escape(mark)}"
        r"(?![\w/*_~¯])"
    )


_EMPHASIS = {mark: _emphasis(mark) for mark in ("***", "**", "*", "___", "__", "_", "~~")}


def _strip_markdown(text: str) -> str:
    if "](" in text:
        text = _LINK.sub(r"\1", text)
    if "\n" in text and any(start in text for start in _RULE_STARTS):
        text = _RULE_LINE.sub("", text)
    if ">" in text:
        text = _QUOTE_MARK.sub("", _SPOILER.sub(r"\1", text))
    if "#" in text:
        text = _HEADING.sub("", text)
    for mark, pattern in _EMPHASIS.items():
        if mark in text:
            text = pattern.sub(r"\1", text)
    if "^" in text:
        text = _SUPERSCRIPT.sub(lambda match: match[0].replace("^", " "), text)
    if "\\" in text:
        text = _ESCAPE.sub(r"\1", text)
    return text


def _strip_links(text: str) -> str:
    return _URL.sub("", text) if "://" in text or "www." in text else text


# --- edit notes -----------------------------------------------------------------------------------

_EDIT = re.compile(
    r"(?:^|\s|(?<=[.!?)\"']))[\s(\[*_^~-]*(?:ninja )?\b(?:e ?d ?i ?t|eta|update)\b"
    r"[\s#(]{0,2}[\d,& -]{0,6}[*_~]*\s?(?:[)\]:;=]|[-–—](?=\s))",
    re.IGNORECASE,
)


def _strip_edits(text: str) -> str:
    folded = text.lower()
    if not ("edit" in folded or "update" in folded or "eta" in folded or "e d i t" in folded):
        return text
    while match := _EDIT.search(text):
        if text[: match.start()].strip():
            return text[: match.start()]
        # A note before the joke: only its own line goes.
        text = text[match.end() :].partition("\n")[2]
    return text


# --- white space ----------------------------------------------------------------------------------

_BLANK_LINES = re.compile(r"\n{3,}")
_UNTIDY = ("  ", "\t", "\r", " \n", "\n ", "\n\n\n")


def _tidy_space(text: str) -> str:
    if not any(space in text for space in _UNTIDY):
        return text.strip()
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return _BLANK_LINES.sub("\n\n", "\n".join(" ".join(line.split()) for line in lines)).strip()


RULES: dict[str, Callable[[str], str]] = {
    "encoding": _fix_encoding,
    "HTML entities": _unescape_html,
    "unusual Unicode": _plain_unicode,
    "Markdown": _strip_markdown,
    "links": _strip_links,
    "edit notes": _strip_edits,
    "white space": _tidy_space,
}
"""The rules of `clean` in order, under the names that manifests count."""
