from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from joker.cli import app
from joker.core.errors import ModelFolderError
from joker.core.model_folder import ModelFolder
from joker.training.hub import write_card


@pytest.fixture(scope="module")
def exported(tiny_folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model that was exported and lost its weights, and what was said."""
    path = tmp_path_factory.mktemp("exported")
    shutil.copytree(tiny_folder.path, path / "model")
    write_card(path / "model", tiny_folder.manifest)
    with (path / "model/README.md").open("a") as card:
        card.write("\nA line of my own.\n")
    assert ModelCard.load(path / "model/README.md").data.library_name == "transformers"
    result = CliRunner().invoke(app, ["export", str(path / "model"), "--drop-weights"])
    assert result.exit_code == 0
    (path / "printed.txt").write_text(result.stdout)
    return path


@pytest.mark.integration
def test_export_prints_the_graphs_folder_and_how_it_agrees(exported: Path) -> None:
    folder, *figures = (exported / "printed.txt").read_text().splitlines()
    assert folder == str(exported / "model/openvino")
    assert [re.sub(r" [\d.e-]+$", "", line) for line in figures] == [
        "mean_kl_nats_per_token",
        "top_token_agreement",
        "positions",
    ]


@pytest.mark.integration
def test_without_its_weights_a_folder_names_the_library_of_its_graph(exported: Path) -> None:
    folder = ModelFolder.open(exported / "model")
    assert folder.has_openvino
    assert not folder.has_weights
    card = exported / "model/README.md"
    read = ModelCard.load(card, ignore_metadata_errors=False)
    assert read.data.library_name == "openvino"
    assert card.read_text().endswith("A line of my own.\n")


def test_export_refuses_what_is_no_model_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(tmp_path)])
    assert isinstance(result.exception, ModelFolderError)
