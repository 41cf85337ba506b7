"""The plural: nouns as they stand behind numbers in messages."""

from __future__ import annotations


def plural(count: float, noun: str, nouns: str | None = None) -> str:
    """Return a noun as it stands behind a number: "joke" behind 1, otherwise "jokes".

    Args:
        count: The number.
        noun: The singular.
        nouns: The plural, if it is not the singular and an "s".
    """
    return noun if count == 1 else nouns or f"{noun}s"
