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

MAX_QUESTION_LENGTH = 300
"""Maximum number of characters of a question; longer titles are stories."""
MAX_PUNCHLINE_LENGTH = 250
"""Maximum number of characters of an answer to a post's question; 99% of Data 1's are shorter."""
MAX_SETUP_PUNCHLINE_LENGTH = 140
"""Maximum number of characters of an answer to a set-up; longer ones are mostly dialogues."""
MAX_SETUP_PARAGRAPHS = 4
"""Maximum number of paragraphs of an answer to a set-up."""
MAX_PAIR_LENGTH = 1_000
"""Maximum number of characters of a question or answer in a file with columns for both."""
MAX_PLAIN_LENGTH = 10_000
"""Maximum number of characters of a plain joke."""
MAX_RAW_LENGTH = 40_000
"""Maximum number of characters of each part before cleaning; Reddit's own limit for posts."""


class Parsed(NamedTuple):
    """The outcome of one post.

    Attributes:
        outcome: ``joke``, ``plain`` or ``dropped``.
        reason: Why it is plain or dropped; empty for a joke.
        question: The question, or a plain joke's title.
        answer: The answer, or a plain joke's text.
        changes: Names of the rules that changed the post.
    """

    outcome: Outcome
    reason: str
    question: str
    answer: str
    changes: frozenset[str]


_TOO_LONG = Parsed("dropped", "too long", "", "", frozenset())


def parse_pair(question: str, answer: str) -> Parsed:
    """Parse a row of a file with columns for question and answer."""
    if max(len(question), len(answer)) > MAX_RAW_LENGTH:
        return _TOO_LONG
    post = _Post(question, answer)
    post.strip_title()
    post.strip_body()
    if reason := post.drop_reason():
        return post.result("dropped", reason)
    if max(len(post.title), len(post.body)) > MAX_PAIR_LENGTH:
        return post.result("dropped", "too long")
    post.change_title("question mark", reddit.tidy_question)
    return post.result("joke")


def parse_post(title: str, body: str) -> Parsed:
    """Parse a post of /r/Jokes."""
    if max(len(title), len(body)) > MAX_RAW_LENGTH:
        return _TOO_LONG
    post = _Post(title, body)
    request = reddit.is_request(post.title, post.body)
    post.strip_title()
    if reason := post.drop_reason():
        return post.result("dropped", reason)
    if len(post.body) > MAX_PLAIN_LENGTH:
        return post.result("dropped", "too long")
    post.strip_body()
    if reason := post.drop_reason():
        return post.result("dropped", reason)

    pairs = reddit.find_pairs(post.body)
    if len(pairs) > 1:
        return post.result("plain", "several jokes")
    if pairs and (request or not reddit.is_question(post.title)):
        post.use_pair(*pairs[0])
    elif request:
        return post.result("dropped", "request")
    elif pair := reddit.continued_question(post.title, post.body):
        post.use_pair(*pair)
    if len(post.title) > MAX_QUESTION_LENGTH or len(post.body) > MAX_PUNCHLINE_LENGTH:
        return post.result("plain", "story")
    if reddit.repeats_title(post.body, post.title):
        return post.result("plain", "headline")
    if reddit.is_question(post.title):
        post.change_title("question mark", reddit.end_question)
        post.change_body("leading dots", reddit.strip_leading_dots)
        return post.result("joke")
    paragraphs = post.body.count("\n\n") + 1
    if len(post.body) > MAX_SETUP_PUNCHLINE_LENGTH or paragraphs > MAX_SETUP_PARAGRAPHS:
        return post.result("plain", "story")
    return (
        post.result("joke")
        if reddit.is_setup(post.title, post.body)
        else post.result("plain", "headline")
    )


class _Post:
    """A title and a body, or a question and an answer, and the rules that changed them."""

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

    def use_pair(self, question: str, answer: str) -> None:
        """Replace the post by a question and answer from its body."""
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

    def drop_reason(self) -> str:
        """Return why the post contains no joke, or an empty text."""
        if not self.title or not self.body:
            return "empty"
        if reddit.is_deleted(self.body) or reddit.is_deleted(self.title):
            return "deleted"
        if not reddit.has_content(self.title) or not reddit.has_content(self.body):
            return "no words"
        return ""

    def result(self, outcome: Outcome, reason: str = "") -> Parsed:
        body = flatten(self.body) if outcome == "joke" else self.body
        return Parsed(outcome, reason, self.title, body, self._changes)
