"""The model card: a model folder's README.md, written from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joker.core.model_folder import CARD, Manifest


def write_card(path: Path, manifest: Manifest) -> None:
    """Write a model card in the hub's format into a model folder."""
    training, data, template = manifest.training, manifest.data, manifest.template
    example = template.render_prompt("Why").removesuffix("Why")
    figures = "\n".join(f"| {name} | {value:.4g} |" for name, value in manifest.metrics.items())
    settings = "\n".join(
        f"| {name} | {value} |" for name, value in training.items() if not isinstance(value, dict)
    )
    (path / CARD).write_text(
        f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [jokes, gpt2]
---

# A joker

A causal language model that invents question-and-answer jokes. It started from
`{manifest.base_model}` and was trained with GPT-2 the Joker.

## Use

`joker tell "Why do cats" --model FOLDER`, or as any causal LM: a joke begins with
`{example.strip()}`, the question goes on behind it, and the answer follows
`{template.answer_marker}` (template `{template.label}`).

## Data

{data.get("train_jokes", 0):,} training and {data.get("test_jokes", 0):,} test jokes, split by
{data.get("split", "?")} with seed {data.get("seed", "?")}; fingerprint
`{data.get("fingerprint", "?")}`. {_left_out(training)}

## Figures on the test split

| figure | value |
|---|---|
{figures}

Bits per byte compare fairly across templates, tokenizers and models; the legacy perplexity
does not.

## Training

| setting | value |
|---|---|
{settings}

## Limits

{_size(training)}Trained on what people posted, it can be offensive or wrong, or repeat
what it read. It does not understand what it says.
""",
        encoding="utf-8",
    )


def _left_out(training: Mapping[str, Any]) -> str:
    """Return sentences on the jokes that were left out of training or added to it."""
    said = []
    if training.get("safe"):
        flagged = training.get("jokes_flagged", 0)
        said.append(
            f"Moderation flagged {flagged:,} training jokes as offensive; they were left out."
        )
    else:
        said.append("Nothing was left out of training for being offensive.")
    if leaked := training.get("jokes_leaked"):
        said.append(f"{leaked:,} extra jokes were near-duplicates of test jokes and left out.")
    if rated := training.get("jokes_rated"):
        said.append(f"A critic learned from {rated:,} rated jokes.")
    return "\n".join(said)


def _size(training: Mapping[str, Any]) -> str:
    if "parameters" not in training:
        return ""
    return f"The model has {training['parameters'] / 1e6:.1f} million parameters.\n"
