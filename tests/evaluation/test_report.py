from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from rich.console import Console

from joker.evaluation.bootstrap import Estimate
from joker.evaluation.evaluate import Report
from joker.evaluation.likelihood_metrics import LikelihoodMetrics, PartMetrics
from joker.evaluation.text_metrics import TextMetrics


def estimate(value: float) -> Estimate:
    return Estimate(value, 0.01, value - 0.02, value + 0.02)


def texts(value: float) -> TextMetrics:
    names = [field.name for field in fields(TextMetrics) if field.name != "jokes"]
    return TextMetrics(jokes=90, **{name: estimate(value) for name in names})


@pytest.fixture
def report() -> Report:
    likelihood = LikelihoodMetrics(
        jokes=1234,
        jokes_too_long=5,
        retrieval_jokes=1000,
        bits_per_byte=estimate(1.25),
        answer_bits_per_byte=estimate(1.5),
        perplexity=estimate(20.0),
        legacy_perplexity=estimate(15.0),
        punchline_retrieval_accuracy=estimate(0.25),
        new=PartMetrics(1200, 970, estimate(1.3), estimate(0.2)),
        known=PartMetrics(34, 30, estimate(0.6), None),
    )
    return Report(
        model="some/model",
        template="original-special",
        data={"name": "jokes.csv", "fingerprint": "f00"},
        settings={"seed": 1},
        likelihood=likelihood,
        tries=100,
        validity=estimate(0.9),
        generated=texts(0.3),
        human=texts(0.4),
        notes=("something is missing",),
        versions={"torch": "2"},
    )


def text(report: Report) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(report.render())
    return capture.get()


def test_json_has_the_figures_as_flat_numbers(report: Report) -> None:
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["jokes"] == 1234
    assert found["jokes_too_long"] == 5
    assert found["bits_per_byte"] == 1.25
    assert found["answer_bits_per_byte"] == 1.5
    assert found["legacy_perplexity"] == 15
    assert found["original_legacy_perplexity"] == 13.64
    assert found["punchline_retrieval_accuracy"] == 0.25
    assert found["punchline_retrieval_chance"] == 0.1
    assert found["validity"] == 0.9
    assert found["new_jokes"] == 1200
    assert found["new_bits_per_byte"] == 1.3
    assert found["known_jokes"] == 34
    assert found["known_punchline_retrieval_accuracy"] is None
    assert found["generated_copied"] == 0.3
    assert found["human_copied"] == 0.4


def test_json_has_an_interval_for_every_estimate(report: Report) -> None:
    found = report.to_dict()
    assert found["intervals"]["bits_per_byte"] == {
        "standard_error": 0.01,
        "low": 1.23,
        "high": 1.27,
    }
    assert set(found["intervals"]) == {
        name for name, value in found.items() if isinstance(value, float)
    } - {"original_legacy_perplexity", "punchline_retrieval_chance"}


def test_json_says_null_for_what_could_not_be_measured(report: Report) -> None:
    likelihood = replace(report.likelihood, legacy_perplexity=None, new=None, known=None)
    bare = replace(report, likelihood=likelihood, validity=None, generated=None, human=None)
    found = bare.to_dict()
    assert set(found) == set(report.to_dict())
    assert found["legacy_perplexity"] is found["validity"] is found["generated_copied"] is None
    assert "legacy_perplexity" not in found["intervals"]


def test_the_report_shows_figures_with_intervals_and_how_to_read_them(report: Report) -> None:
    shown = text(report)
    for expected in (
        "1,234 jokes of jokes.csv",
        "5 too long",
        "1.250",
        "1.230–1.270",
        "of new jokes",
        "34 jokes",
        "970 asked",
        "25.0%",
        "1,000 asked; chance is 10%",
        "13.64",
        "legacy, not comparable across templates",
        "100 first tries, valid 90.0% (88.0%–92.0%)",
        "90 generated",
        "30.0% (28.0%–32.0%)",
        "40.0% (38.0%–42.0%)",
        "Note: something is missing",
    ):
        assert expected in shown


def test_the_report_without_generated_jokes_shows_no_table_of_them(report: Report) -> None:
    shown = text(replace(report, validity=None, generated=None, human=None))
    assert "copied" not in shown


def test_names_with_brackets_are_shown_as_they_are(report: Report) -> None:
    assert "[bold]model" in text(replace(report, model="[bold]model"))
