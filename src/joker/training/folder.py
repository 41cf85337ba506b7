"""Write a trained model's folder: weights, tokenizer, fingerprints, metrics, card and manifest."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from joker.core.fingerprints import Fingerprints
from joker.core.model_folder import Manifest, ModelFolder, write_manifest
from joker.evaluation.held_out import HeldOut
from joker.evaluation.likelihood_metrics import likelihood_metrics
from joker.training.base_model import Base, earlier_trainings
from joker.training.card import write_card
from joker.training.hardware import keep_freed_memory
from joker.training.run_state import Run

_TRACKED_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "gpt2-the-joker")
_RETRIEVAL_LIMIT = 500


def write_folder(
    run: Run,
    base: Base,
    settings: Mapping[str, Any],
    fingerprints: Fingerprints,
    speed: Mapping[str, float],
) -> ModelFolder:
    """Measure a trained model on the test split and write its folder, the manifest last.

    Args:
        run: Its folder is written.
        base: The trained model with its tokenizer; its weights are rounded to the number format
            of the weights on disk, so that what is measured is what is written.
        settings: What ``joker.json`` says of the training.
        fingerprints: Of all jokes the model was trained on.
        speed: Metrics of the training's speed, which join those measured here.
    """
    out, config = run.out, run.config
    base.model.config.use_cache = True
    module: torch.nn.Module = base.model  # PreTrainedModel's own `to` has lost its types
    module.to(getattr(torch, config.weights))
    base.model.save_pretrained(out)
    module.to(torch.float32)
    for file in out.glob("*.safetensors"):
        file.chmod(0o644)  # written for the owner only, but servers run as somebody else
    base.tokenizer.save_pretrained(out)
    fingerprints.write(out)
    keep_freed_memory(False)
    held_out = HeldOut.of(run.data).sample(config.test_limit, config.seed)
    figures = likelihood_metrics(
        base.model,
        base.joke_tokenizer,
        held_out.jokes,
        held_out.clusters,
        seed=config.seed,
        retrieval_limit=min(_RETRIEVAL_LIMIT, config.test_limit),
    )
    manifest = Manifest(
        template=run.template,
        base_model=config.base,
        context_length=base.context_length,
        data=run.data_facts,
        training=dict(settings),
        packages={name: version(name) for name in _TRACKED_PACKAGES},
        metrics={**figures.to_dict(), **speed},
        earlier=earlier_trainings(config.base),
    )
    write_card(out, manifest)
    write_manifest(out, manifest)
    return ModelFolder.open(out)
