"""How posts on Reddit are written: what is a question, and what is boilerplate to remove.

Pure functions on cleaned text, and heuristics: patterns for English as /r/Jokes writes it.
Boilerplate is what posters write before and after their jokes: labels, tags, introductions,
repeated titles, credits and apologies.
"""

from __future__ import annotations

import re
import unicodedata

from joker.core.similarity import normalize


def _any_of(*alternatives: str) -> str:
    """Return a group that matches any of the expressions."""
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


def is_question(title: str) -> bool:
    """Return whether a title ends with ``?`` or is one sentence that begins like a question."""
    if _QUESTION_END.search(title):
        return True
    return starts_question(title.lstrip("\"'")) and not _SEVERAL_SENTENCES.search(title)


def starts_question(text: str, start: int = 0) -> bool:
    """Return whether a text has the beginning of a question at an index."""
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
    if not (title.endswith("..") and first.endswith("?") and rest and starts_question(title)):
        return None
    if not normalize(first).startswith(normalize(title)):
        first = f"{title.rstrip('. ')} {first.lstrip('. ')}"
    return first, rest.strip()


_LABELED = _compile(
    r"^\W{0,3}(?:q|question)\s?\d*\s?[:.)-]+\s*([^\n]+?)\s*\n+"
    r"\W{0,3}(?:a|answer)\s?\d*\s?[:.)-]+\s*([^\n]+)$",
    re.MULTILINE,
)
_MIN_LABELED_SHARE = 0.7
_MAX_PAIR_LINES = 3


def find_pairs(body: str) -> list[tuple[str, str]]:
    """Return the questions, with their answers, that a body consists of.

    Either each is labeled, or the first of two or three lines asks and the others answer. The
    answers to several unlabeled questions are left empty.
    """
    if labeled := [*_LABELED.finditer(body)]:
        covered = sum(len(match[0]) for match in labeled)
        return [(m[1], m[2]) for m in labeled] if covered > _MIN_LABELED_SHARE * len(body) else []
    lines = [line for line in body.split("\n") if line]
    questions = [line for line in lines if line.endswith("?") and starts_question(line)]
    if len(questions) > 1 and len(lines) <= 3 * len(questions):
        return [(question, "") for question in questions]
    if 1 < len(lines) <= _MAX_PAIR_LINES and questions == lines[:1]:
        return [(lines[0], "\n".join(lines[1:]))]
    return []


# --- requests -------------------------------------------------------------------------------------

_JOKE = _any_of(
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
_THEN_JOKE = rf"\b[^.]*\b{_JOKE}\b"  # in the same sentence
_REQUEST = _compile(
    _any_of(
        rf"^\W*requests?\b|[\[(]request\b|\brequest(?:ing|s)?{_THEN_JOKE}|\b{_JOKE}[^.]*\brequest",
        r"\b(?:any(?:one|body)?|some(?:one|body)|who)\b"
        rf"[^.]*\b(?:got|have|has|know|knows|remember|tell|help|care){_THEN_JOKE}",
        r"\b(?:looking for|need(?:ing)?|help (?:me )?with|give (?:me|us)|hit me|show me|send me"
        rf"|let'?s (?:hear|have|see|share)){_THEN_JOKE}",
        rf"(?:^|[,:;.!?-]\s*|please |reddit |guys )(?:tell me|share|post){_THEN_JOKE}",
        rf"\b(?:your|you guys'?|everyone'?s|reddit'?s)\b[^.]*\b{_BEST}{_THEN_JOKE}",
        rf"\b(?:got|know|have|are there|what are|what(?:'s| is)) (?:any|some){_THEN_JOKE}",
        rf"\bwhat(?:'?s| is| are) the {_BEST}{_THEN_JOKE}|^{_BEST}{_THEN_JOKE}\W*\?",
        rf"\b{_JOKE}[^.]*\b(?:anyone|anybody|please|needed|wanted)\W*$",
    )
)
_ABOUT_JOKES = _compile(rf"\b(?:{_JOKE}|request)")
_NO_REQUEST = _compile(r"(?:did|have) you hear|why|how do|i |i'd|i'm|if |wanna|(?:do you )?want")
_REPEATED_REQUEST = _compile(
    r"\b(?:mine|my|here|post|share|any(?:one|body)?|i'?ll start|need|best|looking)\b"
)
_MAX_PUN_LENGTH = 60


def is_request(title: str, body: str) -> bool:
    """Return whether a post asks for jokes instead of telling one.

    A short line that does not repeat the request is an answer: a pun on the question.
    """
    if not _ABOUT_JOKES.search(title) or not _REQUEST.search(title) or _NO_REQUEST.match(title):
        return False
    is_pun = is_question(title) and len(body) <= _MAX_PUN_LENGTH and "\n" not in body
    return not is_pun or bool(_REPEATED_REQUEST.search(body))


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
        rf"|irish|jewish|racist|new|math|science|\w+'s)\b.*\b{_JOKE}\b",
        rf"\b{_JOKE}\b.*\b(?:told|heard|made|from|by|for you|ever)\b",
    )
)
_OPEN_END = ("..", ",", ":", ";", "-", "–", "—")
_CONTINUES = re.compile(r"\.\.|[a-z]|(?i:but|because|cause|and|so|or|except|unless|until)\b")


def is_setup(title: str, body: str) -> bool:
    """Return whether a title that is not a question sets up the body as its punchline.

    It does if the body continues it. Otherwise it must not be about jokes, and must have an open
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


def repeats_title(body: str, title: str) -> bool:
    """Return whether the body repeats the title, which is then only a headline."""
    words = normalize(title)
    return len(words) > 8 and words in normalize(body)


# --- boilerplate ----------------------------------------------------------------------------------

_DELETED = re.compile(r"\W*(?:deleted|removed)(?: by \w+)?\W*", re.IGNORECASE)


def is_deleted(text: str) -> bool:
    """Return whether a text is nothing but Reddit's [deleted] or [removed]."""
    return len(text) < 40 and bool(_DELETED.fullmatch(text))


def has_content(text: str) -> bool:
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
    if match and starts_question(title, match.end()):
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
_MAX_GAP = 12


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
        if not match or match.start() - end > _MAX_GAP or match[0].lower() != word:
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
_MAX_ASIDE_LENGTH = 60


def strip_asides(body: str) -> str:
    """Remove what posters add to their jokes, such as credits, apologies and drum rolls.

    Checks the last line, a final parenthesis, and what follows the last sentence.
    """
    while True:
        starts = [body.rfind("\n") + 1]
        if body.rstrip(" .!*_").endswith((")", "]")):
            starts.append(max(body.rfind("("), body.rfind("[")))
        start = next((index for index in starts if index > 0 and _ASIDE.match(body, index)), -1)
        if start < 0:
            match = _ASIDE_END.search(body, max(len(body) - _MAX_ASIDE_LENGTH, 0))
            start = match.start() if match else -1
        if start < 0 or not has_content(body[:start]):
            return body
        body = body[:start].rstrip()
