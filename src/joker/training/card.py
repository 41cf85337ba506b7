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
    corpus = "".join(map(_corpus, [*manifest.earlier, training]))
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
`{template.answer_marker}` (layout `{template.label}`).

## Data

{data.get("train_jokes", 0):,} training and {data.get("test_jokes", 0):,} test jokes, split by
{data.get("split", "?")} with seed {data.get("seed", "?")}; fingerprint
`{data.get("fingerprint", "?")}`. {_flagged(training)}
{corpus}
## Figures on the test split

| figure | value |
|---|---|
{figures}

Bits per byte compare fairly across layouts, tokenizers and models; the legacy perplexity
does not.

## Training

| setting | value |
|---|---|
{settings}

## Limits

{_size(manifest)}Trained on what people posted, it can be offensive or wrong, or repeat
what it read. It has no understanding of what it says.
""",
        encoding="utf-8",
    )


def _flagged(training: Mapping[str, Any]) -> str:
    if not training.get("safe"):
        return "Nothing was left out for being offensive."
    flagged = training.get("jokes_flagged", 0)
    return f"Moderation flagged {flagged:,} training jokes as offensive, which were left out."


def _corpus(training: Mapping[str, Any]) -> str:
    """Return what a model read in a pretraining, as a section; nothing for a fine-tune."""
    if "documents" not in training:
        return ""
    rows = "\n".join(
        f"| {source} | {training['tokens'].get(source, 0):,} "
        f"| {training['passes'].get(source, 0):.1f} | {_counts(counts)} |"
        for source, counts in training["documents"].items()
    )
    return f"""
## What it read {"next" if training.get("base") else "from scratch"}

{training["budget"]} tokens in all. Whatever holds a joke of the test split was left out.

| source | tokens | times read | documents |
|---|---|---|---|
{rows}
"""


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in counts.items())


def _size(manifest: Manifest) -> str:
    # Blocks may have been stacked on the way: what counts is how large it is now.
    trainings = [manifest.training, *reversed(manifest.earlier)]
    parameters = next((one["parameters"] for one in trainings if "parameters" in one), None)
    if parameters is None:
        return ""
    return (
        f"It is a small model: {parameters / 1e6:.1f} million parameters, against DistilGPT2's 82\n"
        "million. Most of its jokes have the right shape and little sense.\n"
    )
