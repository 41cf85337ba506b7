import pytest

from joker.core.errors import MissingDependencyError, import_optional, plural


def test_a_module_that_is_installed_is_imported() -> None:
    assert import_optional("json.decoder", "reading needs").JSONDecoder


def test_a_missing_module_is_named_with_what_needs_it_and_how_to_install_it() -> None:
    with pytest.raises(MissingDependencyError) as missing:
        import_optional("teapots.spout", "pouring needs")
    assert str(missing.value) == (
        "teapots is not installed; pouring needs pip install 'gpt2-the-joker[train]'"
    )


def test_an_extra_of_its_own_is_named() -> None:
    with pytest.raises(MissingDependencyError, match=r"pouring needs pip install '.*\[tea\]'"):
        import_optional("teapots", "pouring needs", extra="tea")


def test_what_to_do_without_it_is_said() -> None:
    with pytest.raises(MissingDependencyError, match=r"\[train\]', or use a jug$"):
        import_optional("teapots", "pouring needs", otherwise="use a jug")


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "jokes"), (1, "joke"), (1.0, "joke"), (1.5, "jokes"), (2, "jokes")]
)
def test_a_noun_is_singular_only_behind_one(count: float, shown: str) -> None:
    assert plural(count, "joke") == shown


def test_a_plural_of_its_own_is_taken() -> None:
    assert [plural(count, "it was", "they were") for count in (1, 2)] == ["it was", "they were"]
