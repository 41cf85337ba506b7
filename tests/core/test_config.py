from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from joker.core.config import make_config, option, read_config_file
from joker.core.errors import ConfigError


@dataclass(frozen=True)
class Kettle:
    litres: float = option(1.5, "How much it holds.")
    cups: int = option(6, "How many it fills.")
    colour: Literal["red", "blue"] = option("red", "What it looks like.")
    label: str | None = option(None, "What is written on it.")


def test_later_layers_win() -> None:
    assert make_config(Kettle, {"cups": 4, "litres": 2}, {"cups": 5}) == Kettle(2.0, 5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("spout", 1), ("cups", 1.5), ("cups", True), ("colour", "green"), ("label", 3)],
)
def test_an_unknown_setting_or_wrong_value_is_named(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=setting):
        make_config(Kettle, {setting: value})


def test_nothing_is_a_value_where_the_type_says_so() -> None:
    assert make_config(Kettle, {"label": None}).label is None
    with pytest.raises(ConfigError, match="cups"):
        make_config(Kettle, {"cups": None})


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
