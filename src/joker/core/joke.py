"""A joke: a question and its answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Joke:
    """A question-and-answer joke, both parts without surrounding white space.

    Attributes:
        question: The set-up, such as ``Why did the bicycle fall over?``
        answer: The punchline, such as ``It was two tired.``

    Raises:
        ValueError: If a part is empty or has surrounding white space.
    """

    question: str
    answer: str

    def __post_init__(self) -> None:
        for part, text in (("question", self.question), ("answer", self.answer)):
            if not text or text != text.strip():
                raise ValueError(f"a joke's {part} must be text without surrounding white space")

    @classmethod
    def from_text(cls, question: str, answer: str) -> Joke | None:
        """Return the joke of two raw parts, or None when either has nothing to say."""
        question, answer = question.strip(), answer.strip()
        return cls(question, answer) if question and answer else None

    @property
    def byte_count(self) -> int:
        """UTF-8 bytes of question and answer: the denominator of bits per byte."""
        return len(self.question.encode()) + len(self.answer.encode())
