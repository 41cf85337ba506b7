"""Held-out jokes with the jokes that a model was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from joker.data.preparation import prepare
from joker.data.sources import Source


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory, sample_file: Path) -> Path:
    """Return a prepared folder of the sample jokes: 18 to train on and 2 to test on."""
    path = tmp_path_factory.mktemp("prepared") / "sample"
    prepare([Source.custom(sample_file)], path, split="random", seed=1)
    return path
