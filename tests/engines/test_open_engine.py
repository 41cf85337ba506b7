from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from joker.core.errors import ConfigError, ModelFolderError, TokenizerError
from joker.core.model_folder import ModelFolder
from joker.engines import RemoteServer, default_kind, open_engine


def test_serving_parts_load_no_training_library() -> None:
    code = (
        "import sys, joker.cli.tell, joker.generation.teller, joker.engines.openvino\n"
        "print({'torch', 'transformers', 'optimum', 'mlflow', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_server_makes_the_engine_remote_and_nothing_openvino() -> None:
    assert default_kind(None) == "openvino"
    assert default_kind(RemoteServer("http://localhost:8000/v1")) == "remote"


def test_a_folder_without_a_graph_is_refused(tiny_folder: ModelFolder) -> None:
    with pytest.raises(ModelFolderError, match="joker export"):
        open_engine(tiny_folder)


def test_a_remote_engine_without_a_url_is_refused(tiny_folder: ModelFolder) -> None:
    with pytest.raises(ConfigError, match="engine_url"):
        open_engine(tiny_folder, "remote", shared=True)


def _copy(folder: ModelFolder, tmp_path: Path) -> ModelFolder:
    shutil.copytree(folder.path, tmp_path / "model")
    return ModelFolder.open(tmp_path / "model")


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.integration
def test_damaged_weights_are_refused(served_folder: ModelFolder, tmp_path: Path) -> None:
    folder = _copy(served_folder, tmp_path)
    _truncate(folder.openvino / "openvino_model.bin")
    with pytest.raises(ModelFolderError, match="cannot load"):
        open_engine(folder)


@pytest.mark.integration
def test_a_damaged_graph_is_refused(served_folder: ModelFolder, tmp_path: Path) -> None:
    folder = _copy(served_folder, tmp_path)
    _truncate(folder.openvino / "openvino_model.xml")
    with pytest.raises(ModelFolderError, match="joker export"):
        open_engine(folder)


@pytest.mark.integration
def test_a_graph_without_its_tokenizer_is_refused(
    served_folder: ModelFolder, tmp_path: Path
) -> None:
    folder = _copy(served_folder, tmp_path)
    (folder.openvino / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="openvino"):
        open_engine(folder)
