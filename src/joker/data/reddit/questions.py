"""Questions: whether a title asks, sets up or requests, and which questions a body contains.

Pure functions on cleaned text. They go by form and know English as /r/Jokes writes it, so they are
right nearly always.
"""

from __future__ import annotations

import re

from joker.core.similarity import normalise


def _any_of(*alternatives: str) -> str:
    """Return a group that matches any of some expressions."""
    return f"(?:{'|'.join(alternatives)})"


def _compile(expression: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    return re.compile(expression, re.IGNORECASE | flags)


# --- questions ------------------------------------------------------------------------------------

_AUXILIARY = _any_of(
    r"(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|ca|wo)(?:n'?t)?",
    r"am|shall|may|might|must",
)
_INTERROGATIVE = _compile(
    r"(?:(?:and|but|so|hey|ok|yo|guys)\W{1,2})?"
    + _any_of(
        r"(?:what|who|where|why|how|when|which)(?:'?s|'re|'d|'ll)\b",
        rf"(?:what|who|where|why|how|when)(?: the \w+)? {_AUXILIARY}\b",
        rf"(?:what|which|whose|how) \w+(?: \w+){{0,2}} {_AUXILIARY}\b",
        r"how (?:many|much)\b",
        r"(?:have|did|do) (?:you|u|ya)(?: guys| all)?(?: ever)? "
        r"(?:hear|heard|know|see|seen|notice)\b",
        r"you know (?:what|why|how|who)\b",
    )
)
_QUESTION_END = re.compile(r"\?[^\w\n]*$")
_UNTIDY_END = re.compile(r"[\s.]*\?[\s.]*(?=[\"')]*$)")
_OTHER_END = re.compile(r"[\s.,:;-]*$")
_SEVERAL_SENTENCES = re.compile(r"[.!?][\"')]*\s+\S|!\W*$")


def asks(title: str) -> bool:
    """Return whether it ends with ``?`` or is one sentence that begins like a question."""
    if _QUESTION_END.search(title):
        return True
    return begins_question(title.lstrip("\"'")) and not _SEVERAL_SENTENCES.search(title)


def begins_question(text: str, start: int = 0) -> bool:
    """Return whether a text begins like a question at a place."""
    return bool(_INTERROGATIVE.match(text, start))


def tidy_question(question: str) -> str:
    """Remove spaces and dots around the last question mark."""
    return _UNTIDY_END.sub("?", question, count=1)


def end_question(question: str) -> str:
    """End a question with its question mark, without spaces and dots around it."""
    if _QUESTION_END.search(question):
        return tidy_question(question)
    return _OTHER_END.sub("?", question, count=1)


def continued_question(title: str, body: str) -> tuple[str, str] | None:
    """Return question and answer if the body's first line continues the title's question."""
    first, _, rest = body.partition("\n")
    if not (title.endswith("..") and first.endswith("?") and rest and begins_question(title)):
        return None
    if not normalise(first).startswith(normalise(title)):
        first = f"{title.rstrip('. ')} {first.lstrip('. ')}"
    return first, rest.strip()


_LABELLED = _compile(
    r"^\W{0,3}(?:q|question)\s?\d*\s?[:.)-]+\s*([^\n]+?)\s*\n+"
    r"\W{0,3}(?:a|answer)\s?\d*\s?[:.)-]+\s*([^\n]+)$",
    re.MULTILINE,
)
_LABELLED_SHARE = 0.7
_PAIR_LINES = 3


def find_pairs(body: str) -> list[tuple[str, str]]:
    """Return the questions, with their answers, that a body consists of.

    Either each is labelled, or the first of two or three lines asks and the others answer. The
    answers to several unlabelled questions are left empty.
    """
    if labelled := [*_LABELLED.finditer(body)]:
        covered = sum(len(match[0]) for match in labelled)
        return [(m[1], m[2]) for m in labelled] if covered > _LABELLED_SHARE * len(body) else []
    lines = [line for line in body.split("\n") if line]
    asked = [line for line in lines if line.endswith("?") and begins_question(line)]
    if len(asked) > 1 and len(lines) <= 3 * len(asked):
        return [(question, "") for question in asked]
    if 1 < len(lines) <= _PAIR_LINES and asked == lines[:1]:
        return [(lines[0], "\n".join(lines[1:]))]
    return []


# --- requests -------------------------------------------------------------------------------------

_KINDS = _any_of(
    r"jokes?",
    r"puns?",
    r"one[- ]?liners?",
    r"limericks?",
    r"pick[- ]?up lines?",
    r"riddles?",
    r"punch ?lines?",
    r"comebacks?",
    r"insults?",
)
_BEST = r"(?:best|worst|favou?rite|funniest|go[- ]?to|dumbest|dirtiest|most)"
_NAMED = rf"\b[^.]*\b{_KINDS}\b"
_REQUEST = _compile(
    _any_of(
        rf"^\W*requests?\b|[\[(]request\b|\brequest(?:ing|s)?{_NAMED}|\b{_KINDS}[^.]*\brequest",
        r"\b(?:any(?:one|body)?|some(?:one|body)|who)\b"
        rf"[^.]*\b(?:got|have|has|know|knows|remember|tell|help|care){_NAMED}",
        r"\b(?:looking for|need(?:ing)?|help (?:me )?with|give (?:me|us)|hit me|show me|send me"
        rf"|let'?s (?:hear|have|see|share)){_NAMED}",
        rf"(?:^|[,:;.!?-]\s*|please |reddit |guys )(?:tell me|share|post){_NAMED}",
        rf"\b(?:your|you guys'?|everyone'?s|reddit'?s)\b[^.]*\b{_BEST}{_NAMED}",
        rf"\b(?:got|know|have|are there|what are|what(?:'s| is)) (?:any|some){_NAMED}",
        rf"\bwhat(?:'?s| is| are) the {_BEST}{_NAMED}|^{_BEST}{_NAMED}\W*\?",
        rf"\b{_KINDS}[^.]*\b(?:anyone|anybody|please|needed|wanted)\W*$",
    )
)
_ABOUT_JOKES = _compile(rf"\b(?:{_KINDS}|request)")
_NO_REQUEST = _compile(r"(?:did|have) you hear|why|how do|i |i'd|i'm|if |wanna|(?:do you )?want")
_SAYS_SO = _compile(
    r"\b(?:mine|my|here|post|share|any(?:one|body)?|i'?ll start|need|best|looking)\b"
)
_PUN_LENGTH = 60


def requests(title: str, body: str) -> bool:
    """Return whether a post asks for jokes instead of telling one.

    A short line that does not speak of the poster is an answer: a pun on the question.
    """
    if not _ABOUT_JOKES.search(title) or not _REQUEST.search(title) or _NO_REQUEST.match(title):
        return False
    answered = asks(title) and len(body) <= _PUN_LENGTH and "\n" not in body
    return not answered or bool(_SAYS_SO.search(body))


# --- setups and headlines -------------------------------------------------------------------------

_FINITE = _compile(
    r"\b"
    + _any_of(
        _AUXILIARY,
        r"i'?m|i'?ve|i'd|i'll|it'?s|that'?s|there'?s|(?:he|she|who)'s|(?:you|we|they)'(?:re|ve)",
        r"went|got|gets?|goes|go|going|walks?|says?|said|told|tells?|asks?|saw|sees?|came|comes?",
        r"found|finds?|made|makes?|took|takes?|gave|gives?|thinks?|thought|knew|knows?|likes?",
        r"loves?|hates?|wants?|needs?|hears?|heard|reads?|left|lost|met|bought|sold|broke|dies?",
        r"lives?|works?|tr(?:y|ies|ying)|ran|runs?|fell|falls?|beats?|began|became|caught|drove",
        r"ate|felt|feels?|forgot|hit|held|kept|keeps?|let|put|quit|sat|sits?|slept|spent|stood",
        r"stole|swore|threw|understand|woke|won|wrote|writes?|spoke|taught|used|joins?|enters?",
        r"meets?|dating|\w{2,}(?:ed|n't)",
    )
    + r"\b"
)
_META = _compile(
    _any_of(
        r"\b(?:puns?|one[- ]?liners?|limericks?|riddles?|re-?posts?|oldie|haiku|poem|knock knock"
        r"|first post|dedicated|credit|story|x-?post|thread|translated?|translation|confucius"
        r"|this one|my all[- ]time)\b",
        r"\b(?:favou?rite|best|worst|old|dad|bad|short|little|quick|another|first|here'?s|this"
        r"|told|heard|made|dirty|good|great|stupid|lame|corny|cheesy|terrible|funny|silly|blonde?"
        rf"|irish|jewish|racist|new|math|science|\w+'s)\b.*\b{_KINDS}\b",
        rf"\b{_KINDS}\b.*\b(?:told|heard|made|from|by|for you|ever)\b",
    )
)
_OPEN_END = ("..", ",", ":", ";", "-", "–", "—")
_CONTINUES = re.compile(r"\.\.|[a-z]|(?i:but|because|cause|and|so|or|except|unless|until)\b")


def sets_up(title: str, body: str) -> bool:
    """Return whether a title that is not a question is a sentence or the start of one.

    It is if the body continues it. Otherwise it must not be about jokes, and must have an open
    end, enough words for a sentence, or a verb.
    """
    words = len(title.split())
    continues = bool(_CONTINUES.match(body))
    if words >= 4 and continues:
        return True
    if _META.search(title):
        return False
    if words >= 3 and (continues or title.endswith(_OPEN_END)):
        return True
    closed = title.endswith((".", "!", '"'))
    if words >= (5 if closed else 8):
        return True
    return words >= (3 if closed else 4) and bool(_FINITE.search(title))


def quotes(body: str, title: str) -> bool:
    """Return whether the body repeats the title, which is then only a headline."""
    words = normalise(title)
    return len(words) > 8 and words in normalise(body)
