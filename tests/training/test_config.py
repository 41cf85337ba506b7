from pathlib import Path

import pytest

from joker.core.errors import ConfigError
from joker.training.config import training_config
from joker.training.filtering import read_jokes

ROOT = Path(__file__).parents[2]


def test_the_original_recipe_is_the_originals_to_the_letter() -> None:
    config = training_config({"recipe": "original"})
    assert (config.base, config.epochs, config.peak_learning_rate) == ("distilgpt2", 3.0, 2e-5)
    assert (config.weight_decay, config.batch_size, config.gradient_accumulation_steps) == (
        0.01,
        8,
        1,
    )
    assert (config.packing, config.block_size, config.precision) == ("blocks", 128, "float32")
    assert (config.template, config.markers) == ("original", "plain")


def test_an_option_wins_over_the_file_and_the_file_over_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("recipe: original\nepochs: 2\nseed: 5\n")
    config = training_config({"epochs": 1.5}, file)
    assert (config.epochs, config.seed, config.weight_decay) == (1.5, 5, 0.01)


def test_a_base_from_scratch_learns_faster_unless_told() -> None:
    assert training_config({"base": "new:tiny"}).peak_learning_rate == 1e-3
    assert training_config({"base": "new:tiny", "learning_rate": 0.01}).peak_learning_rate == 0.01


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("colour", "red"),
        ("epochs", "three"),
        ("epochs", 0),
        ("epochs", True),
        ("batch_size", 2.5),
        ("batch_size", 0),
        ("recipe", "mine"),
        ("markers", "bold"),
        ("warmup", 1.0),
        ("learning_rate", -1.0),
        ("beta2", 1.0),
        ("seed", -1),
        ("max_steps", -1),
        ("checkpoint_minutes", -1.0),
        ("freeze_layers", -1),
        ("vocabulary_size", "many"),
    ],
)
def test_an_unknown_setting_or_a_wrong_value_is_named(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=setting):
        training_config({setting: value})


def test_a_wrong_value_in_a_file_names_the_file_and_what_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 0")
    with pytest.raises(ConfigError) as refused:
        training_config({}, file)
    assert str(refused.value) == f"{file}: 'epochs' must be greater than 0, not 0"


def test_a_critic_needs_ratings_and_rows_of_whole_jokes() -> None:
    with pytest.raises(ConfigError, match="'critic' needs 'preferences'"):
        training_config({"critic": True})
    with pytest.raises(ConfigError, match="'critic' needs packing 'jokes'"):
        training_config({"recipe": "original", "preferences": "rated.csv", "critic": True})
    assert not training_config({"recipe": "original", "preferences": "rated.csv"}).critic


@pytest.mark.parametrize("file", sorted(ROOT.glob("configs/*")), ids=lambda file: file.name)
def test_the_repositorys_configurations_are_valid_and_their_files_hold_jokes(file: Path) -> None:
    config = training_config({}, file)
    for name in (config.extra_jokes, config.preferences):
        assert name is None or read_jokes(ROOT / name)
