"""Downloading: the two public sets from Kaggle, through kagglehub."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from joker.core.errors import DataError, MissingPartError


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set on Kaggle.

    Attributes:
        slug: Owner and name there.
        file: The file in it that is wanted.
    """

    slug: str
    file: str


DATASETS = (
    Dataset("jiriroz/qa-jokes", "jokes.csv"),
    Dataset("cuddlefish/reddit-rjokes", "jokes_score_name_clean.csv"),
)


def download(dataset: Dataset, out: Path) -> Path:
    """Download a data set and put its file into a folder.

    Args:
        dataset: One of `DATASETS`.
        out: The folder, made if need be.

    Returns:
        The file's path in ``out``.

    Raises:
        DataError: If it cannot be had; the message says how to get it by hand.
        MissingPartError: If kagglehub is not installed.
    """
    try:
        kagglehub = importlib.import_module("kagglehub")
    except ImportError as error:
        raise MissingPartError(
            "kagglehub is not installed; downloading needs pip install 'gpt2-the-joker[train]'"
        ) from error
    target = out / dataset.file
    try:
        place = Path(kagglehub.dataset_download(dataset.slug))
        found = next(place.rglob(dataset.file), None)
        if found is None:
            raise FileNotFoundError(f"there is no {dataset.file} in it")
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, target)
    except Exception as error:  # of requests, of kagglehub, of the system: the way out is the same
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"cannot download {dataset.slug} ({reason}); by hand: open "
            f"https://www.kaggle.com/datasets/{dataset.slug} in a browser, press Download, "
            f"unpack the archive and put {dataset.file} into {out}"
        ) from error
    return target
