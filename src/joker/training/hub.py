"""A model folder on the Hugging Face Hub: its model card, and uploading it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from joker.core.errors import InputError, first_line, plural
from joker.core.model_folder import CARD, Manifest, ModelFolder
from joker.engines.weights import is_gguf

_WEIGHTS_LIBRARY = "transformers"
"""The library that loads the weights, in the card's header."""
_CARD_METRICS = ("bits_per_byte", "answer_bits_per_byte", "punchline_retrieval_accuracy")
_LICENSES = {
    "distilgpt2": "apache-2.0",
    "gpt2": "mit",
    "SmolLM2-135M": "apache-2.0",
    "SmolLM2-135M-Instruct": "apache-2.0",
}
"""Licenses of well-known base models, which apply to their fine-tuned weights too."""


def write_card(path: Path, manifest: Manifest) -> None:
    """Write a model card in the hub's format into a model folder."""
    training, data, template = manifest.training, manifest.data, manifest.template
    metrics = "\n".join(f"| {name} | {value:.4g} |" for name, value in manifest.metrics.items())
    settings = "\n".join(
        f"| {name} | {value} |" for name, value in training.items() if not isinstance(value, dict)
    )
    card = ModelCard(
        f"""---
{_card_data(manifest).to_yaml()}
---

# A joker

A causal language model that generates question-and-answer jokes. It started from
`{manifest.base_model}` and was trained with GPT-2 the Joker.

## Use

`joker tell "Why do cats" --model FOLDER`, or as any causal LM: a joke begins with
`{template.question_prefix.strip()}`, followed by the question, and the answer follows
`{template.answer_marker}` (template `{template.label}`).

## Data

{data.get("train_jokes", 0):,} training and {data.get("test_jokes", 0):,} test jokes, split by
{data.get("split", "?")} with seed {data.get("seed", "?")}; fingerprint
`{data.get("fingerprint", "?")}`. {_left_out(training)}

## Metrics

On the test split, except for `validation_bits_per_byte` and the last three, which are about the
training itself.

| metric | value |
|---|---|
{metrics}

Bits per byte are comparable across templates, tokenizers and models; the legacy perplexity
is not.

## Training

| setting | value |
|---|---|
{settings}

## Limits

{_size(training)}Trained on what people posted, it can be offensive or wrong, or repeat
its training data. It does not understand what it says.
"""
    )
    card.save(path / CARD)


def drop_weights(folder: ModelFolder) -> None:
    """Delete a folder's PyTorch weights, and name the graph's library in its card."""
    card = folder.path / CARD
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        text = text.replace(f"library_name: {_WEIGHTS_LIBRARY}", "library_name: openvino", 1)
        card.write_text(text, encoding="utf-8")
    for file in folder.path.glob("model*.safetensors*"):
        file.unlink()


def push_to_hub(folder: ModelFolder, repo_id: str, *, private: bool = False) -> str:
    """Upload a model folder to the Hugging Face Hub and return its URL.

    Args:
        folder: The model folder; its card becomes the model's page.
        repo_id: ``USER/NAME``; the repository is created if it does not exist.
        private: Create a private repository; an existing one keeps its visibility.

    Raises:
        InputError: If the Hub cannot be reached, rejects the upload, or needs a login.
    """
    api = HfApi(library_name="gpt2-the-joker")
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id,
            folder_path=folder.path,
            commit_message="Upload a model folder of GPT-2 the Joker",
            ignore_patterns=["checkpoints/**", "runs/**"],
        )
    except HFValidationError as error:
        raise InputError(f"{repo_id!r} is not a repository name; write USER/NAME") from error
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        raise InputError(
            f"cannot push to {repo_id} on {api.endpoint}: {first_line(error)} "
            "(log in with 'hf auth login' or set HF_TOKEN to a token that may write there)"
        ) from error
    return str(url)


def _card_data(manifest: Manifest) -> ModelCardData:
    """Return the card's header, which the hub shows and searches."""
    base = _hub_base(manifest)
    split = f"held-out jokes, split by {manifest.data.get('split', '?')}"
    return ModelCardData(
        language="en",
        license=_LICENSES.get((base or "").rpartition("/")[2], "unknown"),
        library_name=_WEIGHTS_LIBRARY,
        pipeline_tag="text-generation",
        tags=["jokes", "humor"],
        base_model=base,
        model_name="A joker",
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type="jokes",
                dataset_name=split,
                metric_type=name,
                metric_value=round(manifest.metrics[name], 4),
            )
            for name in _CARD_METRICS
            if name in manifest.metrics
        ]
        or None,
    )


def _hub_base(manifest: Manifest) -> str | None:
    """Return the hub's name of the base model of the first training, if it has one."""
    name = manifest.base_model
    if manifest.earlier:
        name = str(manifest.earlier[0].get("base", ""))
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return None if is_gguf(name) or Path(name).exists() else name


def _left_out(training: Mapping[str, Any]) -> str:
    """Return sentences about the jokes that were left out of training or added to it."""
    sentences = []
    if training.get("safe"):
        flagged = training.get("jokes_flagged", 0)
        sentences.append(
            f"Moderation flagged {flagged:,} training {plural(flagged, 'joke')} as offensive; "
            f"{plural(flagged, 'it was', 'they were')} left out."
        )
    else:
        sentences.append("No jokes were left out of training for being offensive.")
    if leaked := training.get("jokes_leaked"):
        sentences.append(
            f"{leaked:,} extra "
            f"{plural(leaked, 'joke was a near-duplicate', 'jokes were near-duplicates')}"
            " of test jokes and left out."
        )
    if rated := training.get("jokes_rated"):
        sentences.append(f"Of {rated:,} rated jokes, those that work were added.")
        if training.get("critic"):
            sentences.append("A critic learned from all of them.")
    return "\n".join(sentences)


def _size(training: Mapping[str, Any]) -> str:
    if "parameters" not in training:
        return ""
    return f"The model has {training['parameters'] / 1e6:.1f} million parameters.\n"
