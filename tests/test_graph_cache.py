from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from joker.compose import ensure_graph
from joker.core.errors import MissingDependencyError, ModelFolderError
from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke, Sampling
from joker.core.model_folder import ModelFolder
from joker.engines import GenerationTask, open_engine


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tiny_folder: ModelFolder, sample_jokes: list[Joke], tmp_path: Path) -> ModelFolder:
    """Return a folder of the test's own without a graph."""
    shutil.copytree(tiny_folder.path, tmp_path / "model")
    Fingerprints.of(sample_jokes).save(tmp_path / "model")
    return ModelFolder.open(tmp_path / "model")


@pytest.mark.integration
def test_a_graph_is_exported_once_and_tells_the_models_jokes(
    cache: Path, folder: ModelFolder, sample_jokes: list[Joke]
) -> None:
    before = sorted(folder.path.iterdir())
    served = ensure_graph(folder)
    assert served.path.is_relative_to(cache)
    assert sorted(folder.path.iterdir()) == before
    assert not served.has_weights
    assert Fingerprints.load(served.path)
    engine = open_engine(served)
    task = GenerationTask(engine.tokenizer.encode_prompt("Why did the"), Sampling(temperature=0), 1)
    assert engine.tokenizer.parse(engine.generate([task])[0].token_ids) in sample_jokes
    graph = (served.openvino / "openvino_model.bin").stat().st_mtime_ns
    assert ensure_graph(folder) == served
    assert (served.openvino / "openvino_model.bin").stat().st_mtime_ns == graph
    weights = folder.path / "model.safetensors"
    os.utime(weights, (1, 1))
    assert ensure_graph(folder).path != served.path
    assert all(path.name[0] != "." for path in served.path.parent.iterdir())


@pytest.mark.integration
def test_a_folder_with_a_graph_stays_what_it_is(cache: Path, served_folder: ModelFolder) -> None:
    assert ensure_graph(served_folder) is served_folder
    assert not cache.exists()


def test_a_missing_extra_is_named(
    cache: Path, folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"\[train\]', or use .* 'joker export'"):
        ensure_graph(folder)
    assert not any(cache.rglob("joker.json"))


def test_a_cache_that_cannot_be_written_is_named(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelFolderError, match="cannot write"):
        ensure_graph(folder)
