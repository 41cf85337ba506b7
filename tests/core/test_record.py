from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from joker.core.errors import ConfigError
from joker.core.record import make_record, read_config_file, read_json, record, write_json


@record(ConfigError)
class Kettle:
    litres: float = Field(default=1.5, gt=0)
    cups: int = 6
    colour: Literal["red", "blue"] = "red"
    label: str | None = None
    format_version: int = 1

    def __post_init__(self) -> None:
        if self.cups > 10 * self.litres:
            raise ValueError("a kettle of this size does not fill so many cups")


@record(ConfigError)
class Shelf:
    kettle: Kettle
    format_version: int = 1


def test_a_whole_number_is_a_number() -> None:
    assert Kettle(litres=2).litres == 2.0


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("spout", 1, "unknown setting 'spout'; known settings: litres, cups, colour"),
        ("cups", 1.5, "'cups' must be a whole number, not 1.5"),
        ("cups", True, "'cups' must be a whole number, not True"),
        ("cups", None, "'cups' must be a whole number, not None"),
        ("cups", 16, "a kettle of this size"),
        ("colour", "green", "'colour' must be 'red' or 'blue', not 'green'"),
        ("label", 3, "'label' must be text, not 3"),
        ("litres", -1, "'litres' must be greater than 0, not -1"),
        ("litres", float("nan"), "'litres' must be a finite number"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    setting: str, value: object, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        Kettle(**{setting: value})  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match=f"kettle.yaml: {said}"):
        make_record(Kettle, {setting: value}, Path("kettle.yaml"))


def test_nothing_is_a_value_where_the_type_says_so() -> None:
    assert Kettle(label=None).label is None


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    shelf = Shelf(Kettle(2.5, 3))
    write_json(tmp_path / "shelf.json", shelf)
    assert read(tmp_path / "shelf.json") == shelf
    assert [path.name for path in tmp_path.iterdir()] == ["shelf.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format_version": 2}', "has format version 2, this package reads 1; build it again"),
        ("[]", "has format version None"),
        ('{"format_version": 1}', "shelf.json: 'kettle' is missing"),
        ('{"format_version": 1, "kettle": {"cups": "3"}}', "'kettle.cups' must be a whole number"),
        ('{"format_version": 1, "kettle": {"cups": 16}}', "shelf.json: a kettle of this size"),
        ('{"format_version": 1, "kettle": {"spout": 1}}', "unknown setting 'kettle.spout'"),
        ("{", "cannot read .*shelf.json"),
        ("\udcff", "cannot read .*shelf.json"),
    ],
)
def test_a_file_of_another_form_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "shelf.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=said):
        read(tmp_path / "shelf.json")


def read(path: Path) -> Shelf:
    return read_json(Shelf, path, ConfigError, remedy="build it again")


@pytest.mark.parametrize(("name", "text"), [("k.yaml", "cups: 3"), ("k.json", '{"cups": 3}')])
def test_a_file_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_config_file(tmp_path / name) == {"cups": 3}


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [("k.yaml", "[1]", "mapping"), ("k.yaml", "a: [", "YAML"), ("k.json", "cups: 3", "JSON")],
)
def test_a_file_that_is_no_mapping_is_refused(
    tmp_path: Path, name: str, text: str, named: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=named):
        read_config_file(tmp_path / name)
