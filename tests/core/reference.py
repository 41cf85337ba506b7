"""Plain versions of what the package computes in bulk, to compare with."""

from joker.core.joke import Joke
from joker.core.template import Template


def five_grams(text: str) -> set[str]:
    """Return a normalized text's shingles as one would write them down."""
    return {text[i : i + 5] for i in range(max(len(text) - 4, 1))} if text else set()


def jaccard(left: str, right: str) -> float:
    """Return the Jaccard similarity of two normalized texts' shingles."""
    both = five_grams(left) | five_grams(right)
    return len(five_grams(left) & five_grams(right)) / len(both) if both else 0.0


def render(template: Template, joke: Joke) -> str:
    """Return a joke as one text, without the end-of-text token."""
    question, answer = template.escape(joke.question), template.escape(joke.answer)
    return f"{template.question_prefix}{question}{template.answer_prefix}{answer}"
