"""Boilerplate: what posters write before and after their jokes, and how to remove it.

Pure functions on cleaned text: labels, tags, introductions, repeated titles, credits and apologies.
"""

from __future__ import annotations

import re
import unicodedata

from joker.data.reddit.questions import begins_question

_DELETED = re.compile(r"\W*(?:deleted|removed)(?: by \w+)?\W*", re.IGNORECASE)


def is_deleted(text: str) -> bool:
    """Return whether a text is nothing but Reddit's [deleted] or [removed]."""
    return len(text) < 40 and bool(_DELETED.fullmatch(text))


def says_something(text: str) -> bool:
    """Return whether a text has a letter or digit of any script, or a symbol such as an emoji."""
    return text[:1].isalnum() or any(unicodedata.category(char)[0] in "LNS" for char in text)


# --- before the question --------------------------------------------------------------------------

_QUESTION_LABEL = re.compile(
    r"(?:\W{0,3}(?:q|question|riddle)\s?\d*\W{0,2}[:.)\-–][\s:.)]*|[-–—•]\s+)(?=\S)", re.IGNORECASE
)
_TAG = (
    r"[\[({][^\[\](){}]{0,60}(?:"
    r"\b(?:n+sf[wl]\w*|nfsw|sfw|o\.?c|x-?\s?post(?:s|ed)?|cross-?\s?post(?:s|ed)?|re-?post(?:s|ed)?"
    r"|long|short|offensive|racist|sexist|dark|pg-?\s?\d*|dirty|adult|rated|xxx|clean|fixed|jokes?"
    r"|pun|request|original|first post|nerd|sorry|credit|oldie|true story)\b|\b[ru]/"
    r")[^\[\](){}]{0,60}[\])}]"
)
_TAGS = re.compile(
    rf"^\W*{_TAG}[^\w\"'(\[]*(?=\S)|\s*{_TAG}[\s.]*$"
    r"|^\W*nsf[wl]\b\W*\s|\s*[-:.,;*|]*\s*\bnsf[wl]\b\W*$",
    re.IGNORECASE,
)
_INTRODUCTION = re.compile(
    r"^[^?\"]{0,80}\b(?:jokes?|riddle|pun|told me|told by|from my|one[- ]liner|trivia)\b"
    r"[^?\".:]{0,40}(?:\.{2,}|[:.!-])\s*\"?(?=\w)",
    re.IGNORECASE,
)


def strip_question_label(title: str) -> str:
    """Remove a leading ``Q:``, or the dash of a dialogue."""
    match = _QUESTION_LABEL.match(title)
    return title[match.end() :] if match else title


def strip_tags(title: str) -> str:
    """Remove tags such as ``[NSFW]`` and ``(x-post from ...)`` from both ends of a title."""
    if not any(mark in title for mark in "[({") and "nsf" not in title.lower():
        return title
    while (stripped := _TAGS.sub("", title).strip()) != title:
        title = stripped
    return title


def strip_introduction(title: str) -> str:
    """Remove an introduction such as ``A joke my son told me:`` before a question."""
    match = _INTRODUCTION.match(title)
    if match and begins_question(title, match.end()):
        return title[match.end() :].rstrip('"')
    return title


# --- before the answer ----------------------------------------------------------------------------

_ANSWER_LABEL = re.compile(
    r"\W{0,3}(?:a|answer|ans|punch ?line)\s?\d*\W{0,2}(?::|\.(?=[\s.])|\)|-\s)[\s:.)]*(?=\S)",
    re.IGNORECASE,
)
_SECOND_CHOICE = re.compile(r"(?:^|\s)\W?b\s?[:.)]", re.IGNORECASE | re.MULTILINE)
_LEADING_DOTS = re.compile(r"(?:\s|\.|[-–—](?!\d))+(?=[\w\"'(])")
_WORD = re.compile(r"\w+")
_BOUNDARY = re.compile(r"[^\w\n]*(?:[.?!:\n]|$)")
_AFTER_REPEAT = re.compile(r"[^\w\s]*\s*(?:[-–—:*]+\s*)?")
_WIDEST_GAP = 12


def strip_answer_label(body: str) -> str:
    """Remove a leading ``A:``, unless a ``B:`` follows: then it is a multiple choice."""
    match = _ANSWER_LABEL.match(body)
    return body[match.end() :] if match and not _SECOND_CHOICE.search(body) else body


def strip_leading_dots(body: str) -> str:
    """Remove the dots or dash before an answer."""
    match = _LEADING_DOTS.match(body)
    return body[match.end() :] if match else body


def strip_repeat(title: str, body: str) -> str:
    """Remove the title if the body repeats it as its first sentence."""
    words = _WORD.findall(title.lower())
    if len(words) < 2:
        return body
    end = 0
    for word in words:
        match = _WORD.search(body, end)
        if not match or match.start() - end > _WIDEST_GAP or match[0].lower() != word:
            return body
        end = match.end()
    rest = body[end:]
    return _AFTER_REPEAT.sub("", rest, count=1) if _BOUNDARY.match(rest) else body


# --- after the answer -----------------------------------------------------------------------------

_ASIDES = (
    # exits
    r"i(?:'| wi)?ll (?:just |go |now )*(?:see|show|let|get) my ?self",
    r"i'?m (?:probably )?(?:going|gonna go) to hell",
    # apologies
    r"sorry\W*$|sorry (?:if|for|about|this)|i'?m (?:so |really |very |truly )*sorry",
    r"my apologies|apolog|all apologies|i hope (?:it|this)|upvote|downvote|disclaimer|note:",
    r"(?:yeah |yes )?,?i know.{0,16}\b(?:bad|awful|terrible|sucks|lame|old|cheesy|corny)",
    r"not (?:a|my|the) (?:joke|great|best|own|original)|(?:this is )?(?:my )?first (?:post|joke)",
    # sounds
    r"b[au]h?[ -]?d[ua]m|rim ?shot|cymbal|(?:tee)?he(?:he)+|[ah]*(?:ha){2,}h?\b|lol\W*$",
    # credits
    r"credits?\b|source\b|courtesy of|(?:shamelessly )?stolen from|translated from|h/t|via\b",
    r"(?:wow,? )?thanks? (?:to|you|for|guys)\b|re-?post|x-?post|cross-?post|/?[ur]/\w+",
    r"(?:i )?(?:just )?(?:heard|saw|read|stole|got|made) (?:this|it|that)\b",
    r"(?:i )?(?:just )?(?:thought of|came up with) (?:this|it|that)\b",
    r"heard from|(?:a )?joke (?:from|by|told)|(?:as )?told (?:to|by)|(?:original|oc)\W*$",
    r"(?:one of )?my (?:\w+ ){0,2}(?:favou?rite|told|made|came up|thought)",
    # how to tell it
    r"(?:read|say) (?:it|this|that)? ?(?:out loud|aloud|slowly)|(?:much )?better (?:told|when|if)",
    r"(?:joke )?(?:works|sounds) (?:best|better)|tl;?dr|p\.?s\b|btw\b",
)
_ASIDE = re.compile(rf"[\W_]{{0,5}}(?:{'|'.join(_ASIDES)})", re.IGNORECASE)
# What is said right after the punchline, or a name below it.
_ASIDE_END = re.compile(
    r"(?<=[.!?\"')])[\s*(-]*(?:b[au]h?[ -]?d[ua]m[ -]*(?:t+s+h*\b|tish|tiss|psh|ching)|rim ?shot\b"
    r"|(?:slaps? )?knee(?: slap)?\b|i'?ll (?:just )?(?:see|show|let) myself (?:out|to the door))"
    r"[^\w\n]*$"
    r"|(?<=[.!?\"'\n])\s*[-–—~]+\s*(?-i:[A-Z][\w.]+(?: [A-Z][\w.]+){1,2})[^\w\n]*$",
    re.IGNORECASE,
)
_ASIDE_END_LENGTH = 60


def strip_asides(body: str) -> str:
    """Remove what posters add to their joke: credits, apologies, drum rolls.

    Checks the last line, a last parenthesis, and the last words after a sentence.
    """
    while True:
        starts = [body.rfind("\n") + 1]
        if body.rstrip(" .!*_").endswith((")", "]")):
            starts.append(max(body.rfind("("), body.rfind("[")))
        start = next((place for place in starts if place > 0 and _ASIDE.match(body, place)), -1)
        if start < 0:
            match = _ASIDE_END.search(body, max(len(body) - _ASIDE_END_LENGTH, 0))
            start = match.start() if match else -1
        if start < 0 or not says_something(body[:start]):
            return body
        body = body[:start].rstrip()
