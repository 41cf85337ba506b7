"""Parsing: which part of a post is the question, which the answer, and whether it is a joke at all.

A post of /r/Jokes has a title and a body. It becomes a joke of question and answer if its title
asks or sets up and its body answers briefly; stories become *plain* jokes; requests and empty posts
are dropped. A file with columns for question and answer needs cleaning only. ``docs/data.md`` lists
the rules; `joker.data.reddit` detects the forms they refer to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from joker.data import reddit
from joker.data.cleaning import clean, flatten

Outcome = Literal["joke", "plain", "dropped"]

LONGEST_QUESTION = 300
"""Maximum number of characters of a question; longer titles are stories."""
LONGEST_PUNCHLINE = 250
"""Maximum number of characters of an answer to a post's question; 99% of Data 1's are shorter."""
LONGEST_SETUP_PUNCHLINE = 140
"""Maximum number of characters of an answer to a set-up; longer ones are mostly dialogues."""
MOST_SETUP_PARAGRAPHS = 4
"""Maximum number of paragraphs of an answer to a set-up."""
LONGEST_GIVEN = 1_000
"""Maximum number of characters of a question or answer if a file has columns for both."""
LONGEST_PLAIN = 10_000
"""Maximum number of characters of a plain joke."""
LONGEST_RAW = 40_000
"""Maximum number of characters of a part before cleaning, which is Reddit's limit for posts."""


class Parsed(NamedTuple):
    """The outcome of one row.

    Attributes:
        outcome: ``joke``, ``plain`` or ``dropped``.
        reason: Why it is plain or dropped; empty for a joke.
        question: The question, or a plain joke's title.
        answer: The answer, or a plain joke's text.
        changes: Names of the rules that changed the row.
    """

    outcome: Outcome
    reason: str
    question: str
    answer: str
    changes: frozenset[str]


_TOO_LONG = Parsed("dropped", "too long", "", "", frozenset())


def parse_pair(question: str, answer: str) -> Parsed:
    """Parse a row of a file with columns for question and answer."""
    if max(len(question), len(answer)) > LONGEST_RAW:
        return _TOO_LONG
    row = _Post(question, answer)
    row.strip_title()
    row.strip_body()
    if reason := row.emptiness():
        return row.end("dropped", reason)
    if max(len(row.title), len(row.body)) > LONGEST_GIVEN:
        return row.end("dropped", "too long")
    row.change_title("question mark", reddit.tidy_question)
    return row.end("joke")


def parse_post(title: str, body: str) -> Parsed:
    """Parse a post of /r/Jokes."""
    if max(len(title), len(body)) > LONGEST_RAW:
        return _TOO_LONG
    row = _Post(title, body)
    request = reddit.requests(row.title, row.body)
    row.strip_title()
    if reason := row.emptiness():
        return row.end("dropped", reason)
    if len(row.body) > LONGEST_PLAIN:
        return row.end("dropped", "too long")
    row.strip_body()
    if reason := row.emptiness():
        return row.end("dropped", reason)

    pairs = reddit.find_pairs(row.body)
    if len(pairs) > 1:
        return row.end("plain", "several jokes")
    if pairs and (request or not reddit.asks(row.title)):
        row.take(*pairs[0])
    elif request:
        return row.end("dropped", "request")
    elif pair := reddit.continued_question(row.title, row.body):
        row.take(*pair)
    if len(row.title) > LONGEST_QUESTION or len(row.body) > LONGEST_PUNCHLINE:
        return row.end("plain", "story")
    if reddit.quotes(row.body, row.title):
        return row.end("plain", "headline")
    if reddit.asks(row.title):
        row.change_title("question mark", reddit.end_question)
        row.change_body("leading dots", reddit.strip_leading_dots)
        return row.end("joke")
    paragraphs = row.body.count("\n\n") + 1
    if len(row.body) > LONGEST_SETUP_PUNCHLINE or paragraphs > MOST_SETUP_PARAGRAPHS:
        return row.end("plain", "story")
    return row.end("joke") if reddit.sets_up(row.title, row.body) else row.end("plain", "headline")


class _Post:
    """A title and a body that rules are applied to, and the rules that changed them."""

    def __init__(self, title: str, body: str) -> None:
        title, title_changes = clean(title)
        self.body, body_changes = clean(body)
        self.title = flatten(title)
        self._changes = title_changes | body_changes

    def strip_title(self) -> None:
        self.change_title("tags", reddit.strip_tags)
        self.change_title("labels", reddit.strip_question_label)
        self.change_title("introductions", reddit.strip_introduction)

    def strip_body(self) -> None:
        self.change_body("repeated title", lambda body: reddit.strip_repeat(self.title, body))
        self.change_body("labels", reddit.strip_answer_label)
        self.change_body("asides", reddit.strip_asides)

    def take(self, question: str, answer: str) -> None:
        """Use a question and answer that were found in the body."""
        self.title, self.body = question, answer
        self._changes |= {"question in the body"}
        self.change_body("labels", reddit.strip_answer_label)

    def change_title(self, name: str, rule: Callable[[str], str]) -> None:
        if (title := rule(self.title)) != self.title:
            self.title = title
            self._changes |= {name}

    def change_body(self, name: str, rule: Callable[[str], str]) -> None:
        if (body := rule(self.body)) != self.body:
            self.body = body
            self._changes |= {name}

    def emptiness(self) -> str:
        """Return why the row contains no joke, or an empty text."""
        if not self.title or not self.body:
            return "empty"
        if reddit.is_deleted(self.body) or reddit.is_deleted(self.title):
            return "deleted"
        if not reddit.says_something(self.title) or not reddit.says_something(self.body):
            return "no words"
        return ""

    def end(self, outcome: Outcome, reason: str = "") -> Parsed:
        body = flatten(self.body) if outcome == "joke" else self.body
        return Parsed(outcome, reason, self.title, body, self._changes)
