"""What a program writes into the documentation is what it would write today."""

from pathlib import Path

import pytest

from joker.settings import Settings
from tools.diagrams import figures
from tools.prometheus_rule import resource
from tools.settings_page import page

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"


def test_the_page_of_settings_is_the_settings_own_help() -> None:
    kept = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert kept == page(), "docs/settings.md is old: run 'make docs'"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    assert Settings.model_fields[name].description, f"say what {name} is for in joker.settings"


@pytest.mark.parametrize(("name", "drawing"), figures().items())
def test_a_figure_shows_what_its_page_says(name: str, drawing: str) -> None:
    kept = (DOCS / "images" / name).read_text(encoding="utf-8")
    assert kept == drawing, f"docs/images/{name} is old: run 'make docs'"


def test_kubernetes_has_the_alert_rules_of_prometheus() -> None:
    file = REPOSITORY / "deploy" / "kubernetes" / "monitoring" / "alerts.yaml"
    assert file.read_text(encoding="utf-8") == resource(), f"{file} is old: run 'make docs'"
