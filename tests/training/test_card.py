from pathlib import Path
from typing import Any

import pytest

from joker.core.model_folder import Manifest
from joker.core.template import TEMPLATES
from joker.training.card import write_card


def card(path: Path, **training: Any) -> str:
    """Return the card of a model trained with these settings."""
    write_card(path, Manifest(TEMPLATES["original"], "new:tiny", 128, training=training))
    return (path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({}, "Nothing was left out of training for being offensive."),
        (
            {"safe": True, "jokes_flagged": 1234},
            "Moderation flagged 1,234 training jokes as offensive",
        ),
        ({"jokes_leaked": 7}, "7 extra jokes were near-duplicates of test jokes"),
        ({"jokes_rated": 300}, "A critic learned from 300 rated jokes."),
        ({"parameters": 13_891_584}, "The model has 13.9 million parameters."),
        ({"learning_rate": 2e-4}, "| learning_rate | 0.0002 |"),
    ],
)
def test_the_card_says_how_the_model_was_trained(
    training: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert said in card(tmp_path, **training)
