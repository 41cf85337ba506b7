"""What a page of the documentation takes for granted: jokes, posts, texts, a base, a model."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path

import pytest

from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder, bundled_model

ROOT = Path(__file__).parents[2]
TEXT_SOURCES = ("humor", "trivia", "dialogue", "sentences", "books", "wikipedia")

_PARTS = (
    (
        "The blue harbour",
        "An old postman",
        "Every second gull",
        "My grandmother's clock",
        "The last tram",
        "A tired lighthouse",
        "Nobody's umbrella",
    ),
    (
        "talked of rain",
        "slept until noon",
        "counted the bridges",
        "waited for letters",
        "hummed a slow waltz",
        "borrowed a ladder",
        "painted the fence",
    ),
    (
        "beside the bakery",
        "under a silver moon",
        "behind closed shutters",
        "in the middle of town",
        "with great patience",
        "for no reason at all",
        "after the harvest",
    ),
    (
        "and then went home.",
        "while children laughed.",
        "until the kettle boiled.",
        "as winter came early.",
        "before anyone woke up.",
        "because it was Sunday.",
        "though it cost a penny.",
    ),
)

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
    - ``texts``: sentences of our own, a file for each source that ``configs`` names.
    - ``distilgpt2``: a tiny GPT-2; a folder of that name is what the default base then is.
    - ``configs`` and ``deploy`` of the repository.
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
        (folder / "texts").mkdir()
        for source in TEXT_SOURCES:
            (folder / f"texts/{source}.jsonl").write_text("".join(_tales(source)))
        without_manifest = shutil.ignore_patterns("joker.json")
        shutil.copytree(tiny_folder.path, folder / "distilgpt2", ignore=without_manifest)
        for name in ("configs", "deploy"):
            (folder / name).symlink_to(ROOT / name)
        if "--out my-joker" not in page:
            (folder / "my-joker").symlink_to(bundled_model())
        if "--out prepared" not in page:
            from joker.data.preparation import prepare
            from joker.data.sources import Source

            prepare([Source.own(sample_file)], folder / "prepared")

    return fill


def _write(path: Path, columns: str, rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns.split(","))
        writer.writerows(rows)


def _tales(source: str) -> Iterable[str]:
    """Yield documents of which two share one part in four at most, so that none is a near-copy."""
    for row, column in product(range(7), repeat=2):
        places = (row, column, row + column, row + 2 * column)
        parts = [part[place % 7] for part, place in zip(_PARTS, places, strict=True)]
        yield json.dumps({"text": f"{' '.join(parts)} That was in {source}."}) + "\n"
