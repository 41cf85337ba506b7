"""Evaluate a model folder: all metrics in one report."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version

from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import JokeTokenizer
from joker.engines import open_engine
from joker.engines.weights import load_causal_lm
from joker.evaluation.bootstrap import bootstrap_ratio
from joker.evaluation.config import EvaluationConfig
from joker.evaluation.held_out import HeldOut
from joker.evaluation.likelihood_metrics import LikelihoodMetrics, likelihood_metrics
from joker.evaluation.report import Report
from joker.evaluation.text_metrics import TrainingIndex, first_tries, text_metrics

_PACKAGES = ("gpt2-the-joker", "torch", "transformers", "tokenizers", "numpy", "openvino-genai")


def evaluate(
    folder: ModelFolder,
    held_out: HeldOut,
    config: EvaluationConfig,
    teller: ModelFolder | None = None,
) -> Report:
    """Measure everything on held-out jokes, and on jokes that the model generates.

    Args:
        folder: The model, with PyTorch weights.
        held_out: Jokes it was not trained on.
        config: How much to measure.
        teller: A folder of the same model with an OpenVINO graph, which generates the jokes; by
            default the folder itself.

    Raises:
        ModelFolderError: If the model cannot be loaded or used, or has no graph to generate with.
        DataError: If no joke fits the model.
        ResourceError: If memory runs out.
    """
    held_out = held_out.sample(config.limit, config.seed)
    fingerprints = Fingerprints.read(folder.path)
    likelihood = _likelihood_metrics(folder, held_out, config, fingerprints)
    tries = _first_tries(teller or folder, config)
    jokes = [joke for joke in tries if joke]
    generated = human = None
    if jokes:
        training = None if held_out.training is None else TrainingIndex(held_out.training)
        peers = held_out.sample(len(jokes), config.seed).jokes
        generated = text_metrics(jokes, training, fingerprints, seed=config.seed)
        human = text_metrics(peers, training, fingerprints, seed=config.seed)
    return Report(
        model=str(folder.path),
        template=folder.manifest.template.label,
        data=held_out.facts,
        settings=asdict(config),
        likelihood=likelihood,
        tries=len(tries),
        validity=bootstrap_ratio(list(map(bool, tries)), seed=config.seed) if tries else None,
        generated=generated,
        human=human,
        notes=tuple(_notes(folder, held_out, tries)),
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
    )


def _likelihood_metrics(
    folder: ModelFolder,
    held_out: HeldOut,
    config: EvaluationConfig,
    fingerprints: Fingerprints | None,
) -> LikelihoodMetrics:
    """Load the model, measure it and release its memory."""
    known = None
    if fingerprints:
        known = [fingerprints.estimate(joke).near_duplicate for joke in held_out.jokes]
    return likelihood_metrics(
        load_causal_lm(folder),
        JokeTokenizer.from_folder(folder.path, folder.manifest.template),
        held_out.jokes,
        held_out.clusters,
        seed=config.seed,
        retrieval_limit=config.retrieval_limit,
        known=known,
    )


def _first_tries(folder: ModelFolder, config: EvaluationConfig) -> Sequence[Joke | None]:
    if not config.generate:
        return []
    return first_tries(open_engine(folder, reproducible=True), config.generate, seed=config.seed)


def _notes(folder: ModelFolder, held_out: HeldOut, tries: Sequence[Joke | None]) -> Iterator[str]:
    if held_out.training is None:
        if any(tries):
            yield "originality needs a prepared folder, which knows the training jokes"
    elif folder.manifest.data.get("fingerprint") != held_out.facts["fingerprint"]:
        yield (
            "the model was trained on other data than this folder's, so it may know test jokes, "
            "and originality does not cover all of its training jokes"
        )
    if tries and not any(tries):
        yield f"none of {len(tries)} first tries is a joke"
