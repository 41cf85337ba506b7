"""One name for one idea, and functions that fit on a screen."""

from tools.structure import functions, repeated_class_names, trees

MOST_LINES = 60


def test_no_two_classes_have_one_name() -> None:
    assert repeated_class_names(trees()) == []


def test_no_function_is_longer_than_a_screen() -> None:
    assert [each for each in functions(trees()) if each.lines > MOST_LINES] == []
