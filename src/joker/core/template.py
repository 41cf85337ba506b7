"""Templates: how a question and its answer become one text, and how a text is parsed as a joke.

A template joins question and answer with two *markers*, the visible parts of its prefixes. A marker
is either an added special token or plain text. A joke ends with the tokenizer's end-of-text token,
which is not part of its text here.

A marker inside a question or answer is escaped by a backslash after its first character, which
parsing removes, so every joke survives the round trip exactly.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

from joker.core.errors import TemplateError
from joker.core.joke import Joke
from joker.core.record import make_record, read_config_file, record

MarkerKind = Literal["special", "plain"]

DEFAULT_TEMPLATE = "original"


def _overlap(left: str, right: str) -> bool:
    """Return whether two occurrences of markers can overlap in a text."""
    if left != right and (left in right or right in left):
        return True
    return any(left.endswith(right[:size]) for size in range(1, min(len(left), len(right))))


@record(TemplateError)
class Template:
    r"""One template: ``question_prefix + question + answer_prefix + answer``.

    Attributes:
        question_prefix: Text before the question; may be empty.
        answer_prefix: Text between question and answer, such as ``\n<|answer|> ``.
        markers: ``special`` adds each marker to the tokenizer as one token.
        punchline_first: Whether a joke without a whole question in the prompt is generated
            punchline first: ``answer marker + answer + question marker + question``. It is easier
            to find a question for a punchline than the other way round. A hint, the start of the
            question or a topic, may come first, after a question marker of its own.

    Raises:
        TemplateError: If its texts could not be parsed unambiguously.
    """

    name: str
    question_prefix: str
    answer_prefix: str
    markers: MarkerKind = "special"
    punchline_first: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(
                f"template name {self.name!r} must be letters, digits, dots, dashes or underscores"
            )
        if not self.answer_marker:
            raise ValueError(
                f"template {self.name}: answer_prefix needs a visible marker before the answer"
            )
        if self.punchline_first and not self.question_marker:
            raise ValueError(
                f"template {self.name}: punchline_first needs a visible marker in question_prefix"
            )
        for left, right in product(set(self.marker_texts), repeat=2):
            if "\\" in left:
                raise ValueError(
                    f"template {self.name}: marker {left!r} contains a backslash; "
                    "use another character"
                )
            if len(left) < 2 or _overlap(left, right):
                raise ValueError(
                    f"template {self.name}: markers {left!r} and {right!r} could be mistaken for "
                    "one another or for text; use longer ones that share no beginning and end"
                )

    @property
    def question_marker(self) -> str:
        """The visible part of ``question_prefix``; may be empty."""
        return self.question_prefix.strip()

    @property
    def answer_marker(self) -> str:
        """The visible part of ``answer_prefix``."""
        return self.answer_prefix.strip()

    @property
    def marker_texts(self) -> tuple[str, ...]:
        """The markers that are not empty, in order and without repetition."""
        return tuple(dict.fromkeys(m for m in (self.question_marker, self.answer_marker) if m))

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens that the template adds to the tokenizer's vocabulary."""
        return self.marker_texts if self.markers == "special" else ()

    @property
    def label(self) -> str:
        """Name and kind of markers, such as ``original-plain``; unique in a comparison."""
        return f"{self.name}-{self.markers}"

    def escape(self, text: str) -> str:
        """Return text with all markers escaped."""
        for marker in self.marker_texts:
            head, rest = re.escape(marker[0]), re.escape(marker[1:])
            text = re.sub(rf"({head})(\\*{rest})", r"\1\\\2", text)
        return text

    def unescape(self, text: str) -> str:
        """Undo `escape`."""
        for marker in self.marker_texts:
            head, rest = re.escape(marker[0]), re.escape(marker[1:])
            text = re.sub(rf"({head})\\(\\*{rest})", r"\1\2", text)
        return text

    def is_hint(self, prompt: str) -> bool:
        """Return whether a prompt only hints at a question that follows the punchline."""
        return self.punchline_first and not prompt.rstrip().endswith("?")

    def parse(self, text: str) -> Joke | None:
        """Return the joke of a text in this template.

        None if the question marker is missing, the answer marker is missing or repeated, or a part
        is empty.
        """
        text = text.strip()
        first, second = self.question_marker, self.answer_marker
        if self.punchline_first and text.startswith(first):
            _, marker, rest = text.partition(second)
            if first in rest:
                text = marker + rest  # after a hint
        reverse = self.punchline_first and text.startswith(second)
        if reverse:
            first, second = second, first
        if not text.startswith(first):
            return None
        head, marker, tail = text[len(first) :].partition(second)
        if not marker or any(m in head or m in tail for m in self.marker_texts):
            return None
        question, answer = (tail, head) if reverse else (head, tail)
        return Joke.from_text(self.unescape(question), self.unescape(answer))

    def parse_partial(self, text: str) -> tuple[str, str]:
        """Return the question and the answer so far of an unfinished text.

        Held back are what may be the beginning of a marker, a text without a question marker yet,
        and an answer that comes first.
        """
        text = text.lstrip()
        if self.punchline_first and text.startswith(self.question_marker):
            hint, marker, rest = text.partition(self.answer_marker)
            if marker and self.is_hint(hint):
                text = marker + rest
        if self.punchline_first and text.startswith(self.answer_marker):
            _, marker, question = text.partition(self.question_marker)
            text = marker + question
        if not text.startswith(self.question_marker):
            return "", ""
        body = text[len(self.question_marker) :]
        held = max(
            (
                size
                for marker in self.marker_texts
                for size in range(1, len(marker))
                if body.endswith(marker[:size])
            ),
            default=0,
        )
        question, _, answer = body[: len(body) - held].partition(self.answer_marker)
        return self.unescape(question).strip(), self.unescape(answer).strip()

    def with_markers(self, kind: MarkerKind | None) -> Template:
        """Return the template with this kind of markers; None keeps its own."""
        return self if kind is None else replace(self, markers=kind)


TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template("original", "<|question|> ", "\n<|answer|> "),
        Template("separator", "<|joke|> ", " <|punchline|> "),
        Template("words", "Question: ", "\nAnswer: ", markers="plain"),
    )
}
"""The original's template, one with a start and a separator token, and one with plain words."""


def load_template(name_or_path: str) -> Template:
    """Return a built-in template by name, or one read from a ``.yaml``, ``.yml`` or ``.json`` file.

    Raises:
        TemplateError: If there is no such template or the file does not describe one.
        ConfigError: If the file cannot be read.
    """
    if name_or_path in TEMPLATES:
        return TEMPLATES[name_or_path]
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml", ".json"}:
        raise TemplateError(
            f"unknown template {name_or_path!r}: choose {', '.join(TEMPLATES)}, "
            "or name a .yaml or .json file"
        )
    return make_record(Template, read_config_file(path), path)
