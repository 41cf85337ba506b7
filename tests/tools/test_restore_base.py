from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.training.base_model import load_pretrained, open_base
from tools.restore_base import main


@pytest.fixture
def shrunk(tiny_folder: ModelFolder, sample_jokes: list[Joke], tmp_path: Path) -> ModelFolder:
    """Return the tiny model with a smaller vocabulary and other weights."""
    path = tmp_path / "shrunk"
    shutil.copytree(tiny_folder.path, path)
    base = open_base(
        str(tiny_folder.path),
        tiny_folder.manifest.template,
        [f"{joke.question} {joke.answer}" for joke in sample_jokes],
        vocabulary_size=400,
    )
    with torch.no_grad():
        for value in base.model.parameters():
            value.add_(1)
    base.model.save_pretrained(path)
    base.tokenizer.save_pretrained(path)
    return ModelFolder.open(path)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Path) -> None:
    monkeypatch.setattr("sys.argv", ["restore_base.py", *map(str, arguments)])
    main()


def test_every_token_gets_the_row_that_it_has_in_the_base(
    tiny_folder: ModelFolder, shrunk: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, shrunk.path, tiny_folder.path, tmp_path / "restored")
    base_tokenizer, base = load_pretrained(str(tiny_folder.path))
    tokenizer, restored = load_pretrained(str(ModelFolder.open(tmp_path / "restored").path))
    assert len(tokenizer) < len(base_tokenizer)
    own, theirs = (next(model.parameters()) for model in (restored, base))
    rows = base_tokenizer.get_vocab()
    for token, row in tokenizer.get_vocab().items():
        torch.testing.assert_close(own[row], theirs[rows[token]])
    for (name, value), other in zip(restored.named_parameters(), base.parameters(), strict=True):
        if value.shape == other.shape:
            torch.testing.assert_close(value, other, msg=name)


def test_a_folder_that_exists_is_kept(
    tiny_folder: ModelFolder, shrunk: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="exists; name another folder"):
        run(monkeypatch, shrunk.path, tiny_folder.path, shrunk.path)
