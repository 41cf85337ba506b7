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
from joker.training.export import write_card


@pytest.mark.integration
def test_export_prints_the_graphs_folder_and_how_it_agrees(
    served_folder: ModelFolder, tmp_path: Path
) -> None:
    shutil.copytree(served_folder.path, tmp_path / "model")
    result = CliRunner().invoke(app, ["export", str(tmp_path / "model")])
    assert result.exit_code == 0
    folder, *figures = result.stdout.splitlines()
    assert folder == str(tmp_path / "model" / "openvino")
    assert [re.sub(r" [\d.e-]+$", "", line) for line in figures] == [
        "mean_kl_nats_per_token",
        "top_token_agreement",
        "positions",
    ]


@pytest.mark.integration
def test_without_its_weights_a_folder_names_the_library_of_its_graph(
    tiny_folder: ModelFolder, tmp_path: Path
) -> None:
    shutil.copytree(tiny_folder.path, tmp_path / "model")
    card = tmp_path / "model/README.md"
    write_card(card.parent, tiny_folder.manifest)
    card.write_text(card.read_text() + "\nA line of my own.\n")
    assert ModelCard.load(card).data.library_name == "transformers"
    result = CliRunner().invoke(app, ["export", str(card.parent), "--drop-weights"])
    assert result.exit_code == 0
    read = ModelCard.load(card, ignore_metadata_errors=False)
    assert read.data.library_name == "openvino"
    assert card.read_text().endswith("A line of my own.\n")
    folder = ModelFolder.open(card.parent)
    assert folder.has_openvino
    assert not folder.has_weights


def test_export_refuses_what_is_no_model_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(tmp_path)])
    assert isinstance(result.exception, ModelFolderError)
