"""One name for one idea, and functions that fit on a screen."""

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tools.structure import Function, functions, repeated_class_names, trees

MOST_LINES = 60


@pytest.fixture
def fresh_process() -> Iterator[Executor]:
    """Run in a process of its own: CPython 3.11 parses wrongly after Playwright's greenlets."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        yield executor


def test_no_two_classes_have_one_name(fresh_process: Executor) -> None:
    assert fresh_process.submit(_repeated).result() == []


def test_no_function_is_longer_than_a_screen(fresh_process: Executor) -> None:
    assert fresh_process.submit(_too_long).result() == []


def _repeated() -> list[str]:
    return repeated_class_names(trees())


def _too_long() -> list[Function]:
    return [each for each in functions(trees()) if each.lines > MOST_LINES]
