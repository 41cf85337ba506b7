"""What a page of the documentation takes for granted: jokes, posts, a base, a model."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder, bundled_model

ROOT = Path(__file__).parents[2]

Furnish = Callable[[Path, str], None]


@pytest.fixture(scope="session")
def furnish(
    sample_jokes: list[Joke],
    sample_file: Path,
    tiny_folder: ModelFolder,
    require: Callable[[str], None],
) -> Furnish:
    """Return ``furnish(folder, page)``, which puts small real inputs under the pages' names.

    - ``my-jokes.csv``, and under ``raw`` both Kaggle files: our own jokes in their columns.
    - ``distilgpt2``: a tiny GPT-2; a folder of that name is what the default base then is.
    - ``deploy`` of the repository.
    - ``prepared`` and ``my-joker`` where the page does not make them: these jokes prepared, and
      the bundled model.
    """
    for module in ("mlflow", "nncf", "pyarrow"):
        require(module)

    def fill(folder: Path, page: str) -> None:
        shutil.copy(sample_file, folder / "my-jokes.csv")
        jokes = [(row, joke.question, joke.answer) for row, joke in enumerate(sample_jokes)]
        posts = [(n, f"p{n}", 9, q, a, 1_400_000_000, f"t3_p{n}") for n, q, a in jokes]
        _write(folder / "raw/jokes.csv", "ID,Question,Answer", jokes)
        _write(folder / "raw/jokes_score_name_clean.csv", ",id,score,q,a,timestamp,name", posts)
        without_manifest = shutil.ignore_patterns("joker.json")
        shutil.copytree(tiny_folder.path, folder / "distilgpt2", ignore=without_manifest)
        (folder / "deploy").symlink_to(ROOT / "deploy")
        if "--out my-joker" not in page:
            (folder / "my-joker").symlink_to(bundled_model())
        if "--out prepared" not in page:
            from joker.data.preparation import prepare
            from joker.data.sources import Source

            prepare([Source.custom(sample_file)], folder / "prepared")

    return fill


def _write(path: Path, columns: str, rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns.split(","))
        writer.writerows(rows)
