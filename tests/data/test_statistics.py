from pathlib import Path

import pytest

from joker.core.errors import DataError
from joker.data.preparation import prepare
from joker.data.prepared import PreparedData
from joker.data.sources import Source
from joker.data.statistics import describe, plot, quantiles


@pytest.fixture
def data(qa_file: Path, rjokes_file: Path, tmp_path: Path) -> PreparedData:
    sources = [Source.qa_jokes(qa_file), Source.rjokes(rjokes_file)]
    prepare(sources, tmp_path / "out", split="random")
    return PreparedData.open(tmp_path / "out")


def test_figures_describe_the_folder(data: PreparedData) -> None:
    statistics = describe(data)
    assert sum(statistics.sizes.values()) == len(statistics.question_lengths) == 35
    assert statistics.scores == {"rjokes": [0, 10]} or statistics.scores == {"rjokes": [10, 0]}
    joke, size = statistics.largest[0]
    assert size == 3
    assert "kettle" in joke.question
    assert sum(statistics.clusters) == 35


def test_quantiles_are_values_of_the_sample() -> None:
    assert quantiles([1, 1, 1, 1, 1000]) == [1, 1, 1, 1000, 1000, 1000]


def test_the_plot_is_a_png(data: PreparedData, tmp_path: Path) -> None:
    plot(describe(data), data.manifest, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_is_one_sentence(data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot write .*plot\.png"):
        plot(describe(data), data.manifest, tmp_path / "nowhere" / "plot.png")
