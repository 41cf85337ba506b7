from pathlib import Path

import pytest

from joker.core.errors import ConfigError
from joker.data.preparation import prepare
from joker.data.prepared import PreparedData
from joker.data.sources import Source
from joker.training.config import TrainingConfig
from joker.training.selection import select_jokes

RUDE = "".join(f"What ails pump {n}?,It is a genocidal pump number {n}.\n" for n in range(20))
GRIM = "".join(f"Why is fusebox {n} dead?,It burned through wire {n}.\n" for n in range(20))


@pytest.fixture(scope="module")
def mixed(joke_file: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Return harmless jokes with rude ones and some that only come near the list."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "all.csv").write_text(joke_file.read_text(encoding="utf-8") + RUDE + GRIM, "utf-8")
    prepare([Source.own(folder / "all.csv")], folder / "data", split="random", seed=1)
    return PreparedData.open(folder / "data")


def test_safe_training_leaves_out_flagged_jokes_and_counts_them(mixed: PreparedData) -> None:
    everything = select_jokes(mixed, TrainingConfig())
    assert (everything.flagged, everything.near) == (0, 0)
    safe = select_jokes(mixed, TrainingConfig(safe=True))
    assert safe.flagged >= 10
    assert safe.near == 0
    assert len(safe.jokes) == len(everything.jokes) - safe.flagged
    assert not any("pump" in joke.question for joke in safe.jokes)
    assert any("fusebox" in joke.question for joke in safe.jokes)


def test_wary_training_leaves_out_jokes_near_the_list_too(mixed: PreparedData) -> None:
    safe = select_jokes(mixed, TrainingConfig(safe=True))
    wary = select_jokes(mixed, TrainingConfig(safe=True, wary=True))
    assert wary.flagged == safe.flagged
    assert wary.near >= 10
    assert len(wary.jokes) == len(safe.jokes) - wary.near
    assert not any("fusebox" in joke.question for joke in wary.jokes)


def test_wary_training_that_is_not_safe_is_refused() -> None:
    with pytest.raises(ConfigError, match="goes with 'safe'"):
        TrainingConfig(wary=True)


def test_distinct_training_takes_the_first_joke_of_each_cluster(prepared: PreparedData) -> None:
    train = prepared.jokes("train")
    firsts = {one.cluster: one.joke for one in reversed(train)}
    assert len(firsts) < len(train)
    selected = select_jokes(prepared, TrainingConfig(distinct=True))
    assert selected.jokes == [one.joke for one in train if firsts[one.cluster] == one.joke]
    assert (selected.flagged, selected.near) == (0, 0)
