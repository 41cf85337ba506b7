"""OpenVINO graphs of model folders that have none, exported once into the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from joker.core.errors import MissingPartError, ModelFolderError
from joker.core.model_folder import ModelFolder


def ensure_graph(folder: ModelFolder) -> ModelFolder:
    """Return a folder of the same model with an OpenVINO graph, which may be the folder itself.

    A folder without a graph stays as it is: the graph goes into a copy of the folder without its
    weights, in ``$XDG_CACHE_HOME/gpt2-the-joker`` or ``~/.cache/gpt2-the-joker``. The copy is used
    again until a file of the folder changes. An export takes from seconds to a minute.

    Raises:
        ModelFolderError: If the weights cannot be exported or the cache cannot be written.
        MissingPartError: If the extra ``train`` is not installed.
    """
    if folder.has_openvino:
        return folder
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpt2-the-joker"
    cached = cache / _key(folder.path)
    if not cached.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=cache) as name:
                copy = Path(name) / "model"
                _export(folder, copy)
                with suppress(OSError):  # Another process may have been faster.
                    copy.rename(cached)
        except OSError as error:
            raise ModelFolderError(f"cannot write to {cache}: {error.strerror}") from error
    return ModelFolder.open(cached)


def _export(folder: ModelFolder, copy: Path) -> None:
    """Make a copy of a folder with a graph in place of the weights."""
    try:
        from joker.training.export import export_openvino
    except ModuleNotFoundError as error:
        raise MissingPartError(
            f"{folder.path} has no OpenVINO graph, and exporting one needs {error.name}: "
            "pip install 'gpt2-the-joker[train]', or run 'joker export' where that is installed"
        ) from error
    copy.mkdir()
    for file in _files(folder.path):
        if file.suffix == ".safetensors":
            (copy / file.name).symlink_to(file.resolve())
        else:
            shutil.copyfile(file, copy / file.name)
    export_openvino(ModelFolder.open(copy))
    for weights in copy.glob("*.safetensors"):
        weights.unlink()


def _key(path: Path) -> str:
    """Return a name that changes with the folder's place and its files' sizes and times."""
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in _files(path)]
    return hashlib.blake2b(repr((path.resolve(), states)).encode(), digest_size=16).hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file())
