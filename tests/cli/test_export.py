from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from joker.cli import app
from joker.core.errors import ModelFolderError
from joker.core.model_folder import ModelFolder


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


def test_export_refuses_what_is_no_model_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(tmp_path)])
    assert isinstance(result.exception, ModelFolderError)
