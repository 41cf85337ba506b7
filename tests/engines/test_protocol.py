from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from joker.core.errors import InputError, ModelFolderError
from joker.core.joke import Sampling
from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import JokeTokenizer
from joker.engines.protocol import fit_context, is_greedy, load_tokenizer
from joker.engines.tasks import GenerationTask


@pytest.fixture
def tokenizer(tiny_folder: ModelFolder) -> JokeTokenizer:
    return load_tokenizer(tiny_folder, tiny_folder.path)


@pytest.mark.parametrize(
    ("sampling", "greedy"),
    [
        (Sampling(temperature=0), True),
        (Sampling(temperature=1e-300), True),
        (Sampling(top_k=1), True),
        (Sampling(temperature=0.01), False),
        (Sampling(), False),
    ],
)
def test_sampling_is_greedy_when_luck_plays_no_part(sampling: Sampling, greedy: bool) -> None:
    assert is_greedy(sampling) is greedy


def test_the_new_tokens_fill_the_context_at_most(tokenizer: JokeTokenizer) -> None:
    prompt_ids = tokenizer.encode_prompt("Why do")
    task = GenerationTask(prompt_ids, Sampling(max_new_tokens=100), seed=0)
    assert fit_context(task, 1000) == task
    assert fit_context(task, len(prompt_ids) + 1).sampling == Sampling(max_new_tokens=1)


def test_a_prompt_without_room_is_refused(tokenizer: JokeTokenizer) -> None:
    prompt_ids = tokenizer.encode_prompt("Why do")
    with pytest.raises(InputError, match=f"{len(prompt_ids)} tokens long"):
        fit_context(GenerationTask(prompt_ids, Sampling(), seed=0), len(prompt_ids))


@pytest.mark.parametrize(("config", "named"), [({"vocab_size": 100}, "100"), (None, "config.json")])
def test_a_tokenizer_of_another_model_is_refused(
    tiny_folder: ModelFolder, tmp_path: Path, config: dict[str, int] | None, named: str
) -> None:
    path = tmp_path / "model"
    shutil.copytree(tiny_folder.path, path)
    (path / "config.json").write_text(json.dumps(config) if config else "{", "utf-8")
    with pytest.raises(ModelFolderError, match=named):
        load_tokenizer(ModelFolder.open(path), path)
