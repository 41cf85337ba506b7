"""The model card: a model folder's README.md, written from its manifest."""

from __future__ import annotations

from pathlib import Path

from joker.core.model_folder import CARD, Manifest


def write_card(path: Path, manifest: Manifest) -> None:
    """Write a model card in the hub's format into a model folder."""
    training, data, template = manifest.training, manifest.data, manifest.template
    example = template.render_prompt("Why").removesuffix("Why")
    figures = "\n".join(f"| {name} | {value:.4g} |" for name, value in manifest.metrics.items())
    settings = "\n".join(f"| {name} | {value} |" for name, value in training.items())
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
`{data.get("fingerprint", "?")}`.

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

Trained on jokes that people posted, it can be offensive, wrong or a copy of what it
read. It has no understanding of what it says.
""",
        encoding="utf-8",
    )
