"""Evaluate a model folder: all metrics in one report, as a flat JSON object and as tables.

``docs/metrics.md`` has the formulas.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from joker.core.errors import plural
from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.core.tokenizer import JokeTokenizer
from joker.engines import open_engine
from joker.engines.weights import load_causal_lm
from joker.evaluation import EvaluationConfig
from joker.evaluation.bootstrap import Estimate, bootstrap_ratio
from joker.evaluation.held_out import HeldOut
from joker.evaluation.likelihood_metrics import (
    CHANCE,
    ORIGINAL_PERPLEXITY,
    LikelihoodMetrics,
    ModelScorer,
    Scorer,
    likelihood_metrics,
)
from joker.evaluation.text_metrics import TextMetrics, TrainingIndex, first_tries, text_metrics

_PACKAGES = ("gpt2-the-joker", "torch", "transformers", "tokenizers", "numpy", "openvino-genai")

_TEXT_ROWS = (
    ("copied from training", "copied", "{:.1%}"),
    ("  exactly", "copied_exactly", "{:.1%}"),
    ("  nearly", "copied_nearly", "{:.1%}"),
    ("  the answer", "copied_answer", "{:.1%}"),
    ("near-duplicates by fingerprint", "near_duplicate", "{:.1%}"),
    ("different questions", "distinct_questions", "{:.1%}"),
    ("distinct-1", "distinct_1", "{:.3f}"),
    ("distinct-2", "distinct_2", "{:.3f}"),
    ("distinct-3", "distinct_3", "{:.3f}"),
    ("25 most frequent answers", "frequent_answers", "{:.1%}"),
    ("25 most frequent questions", "frequent_questions", "{:.1%}"),
    ("flagged as offensive", "flagged", "{:.1%}"),
)


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found.

    Attributes:
        model: The model folder.
        template: Its template's label.
        data: Where the held-out jokes come from.
        settings: The evaluation's configuration.
        likelihood: How well the model predicts people's jokes.
        tries: Number of texts generated.
        validity: Share of them that are valid jokes; None, like ``generated`` and ``human``, if
            there are none.
        generated: Metrics of the generated jokes.
        human: Metrics of the same number of held-out human jokes.
        notes: What could not be measured, and why.
        versions: Versions of the packages that measured.
    """

    model: str
    template: str
    data: dict[str, Any]
    settings: dict[str, Any]
    likelihood: LikelihoodMetrics
    tries: int
    validity: Estimate | None
    generated: TextMetrics | None
    human: TextMetrics | None
    notes: tuple[str, ...]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return one JSON object: metrics by name, their intervals under ``intervals``."""
        metrics = dict(self._metrics())
        estimates = {name: value for name, value in metrics.items() if isinstance(value, Estimate)}
        return {
            "model": self.model,
            "template": self.template,
            "data": self.data,
            "settings": self.settings,
            **metrics,
            **{name: estimate.value for name, estimate in estimates.items()},
            "original_legacy_perplexity": ORIGINAL_PERPLEXITY,
            "punchline_retrieval_chance": CHANCE,
            "intervals": {
                name: {
                    "standard_error": estimate.standard_error,
                    "low": estimate.low,
                    "high": estimate.high,
                }
                for name, estimate in estimates.items()
            },
            "notes": list(self.notes),
            "versions": self.versions,
        }

    def _metrics(self) -> Iterator[tuple[str, Estimate | int | None]]:
        yield from self.likelihood.items()
        yield "tries", self.tries
        yield "validity", self.validity
        for prefix, metrics in (("generated", self.generated), ("human", self.human)):
            for field in fields(TextMetrics):
                yield f"{prefix}_{field.name}", getattr(metrics, field.name) if metrics else None

    def render(self) -> RenderableType:
        """Return the report for a terminal."""
        parts: list[RenderableType] = [Text(self._heading()), self._likelihood_table()]
        if self.generated and self.human:
            parts.append(self._text_table(self.generated, self.human))
        parts += [Text(f"Note: {note}") for note in self.notes]
        return Group(*parts)

    def _heading(self) -> str:
        too_long = self.likelihood.jokes_too_long
        return (
            f"{self.model}, template {self.template}, on {self.likelihood.jokes:,} "
            f"{plural(self.likelihood.jokes, 'joke')} of {self.data['name']}"
            + (f" ({too_long:,} too long for it)" if too_long else "")
        )

    def _likelihood_table(self) -> Table:
        metrics = self.likelihood
        table = _table("How well it predicts human jokes", "metric", "value", "95% interval")
        table.add_column("how to read it")
        parts = (("new", metrics.new), ("known", metrics.known))
        rows = (
            ("bits per byte", metrics.bits_per_byte, "{:.3f}", "compare by this; lower is better"),
            *(
                (
                    f"  of {name} jokes",
                    part.bits_per_byte,
                    "{:.3f}",
                    f"{part.jokes:,} {plural(part.jokes, 'joke')}",
                )
                for name, part in parts
                if part
            ),
            ("answer bits per byte", metrics.answer_bits_per_byte, "{:.3f}", "given the question"),
            (
                "punchline retrieval",
                metrics.punchline_retrieval_accuracy,
                "{:.1%}",
                f"{metrics.retrieval_jokes:,} asked; chance is {CHANCE:.0%}",
            ),
            *(
                (
                    f"  of {name} jokes",
                    part.punchline_retrieval_accuracy,
                    "{:.1%}",
                    f"{part.retrieval_jokes:,} asked",
                )
                for name, part in parts
                if part
            ),
            ("perplexity per token", metrics.perplexity, "{:.2f}", "one joke per context"),
            (
                "legacy perplexity",
                metrics.legacy_perplexity,
                "{:.2f}",
                "legacy, not comparable across templates",
            ),
        )
        for name, estimate, style, hint in rows:
            table.add_row(name, *_cells(estimate, style), hint)
        table.add_row("  of the original", f"{ORIGINAL_PERPLEXITY}", "", "as it reports it")
        return table

    def _text_table(self, generated: TextMetrics, human: TextMetrics) -> Table:
        validity = _with_interval(self.validity, "{:.1%}")
        table = _table(
            f"Its own jokes ({self.tries:,} first tries, valid {validity})",
            "metric",
            f"{generated.jokes:,} generated",
            f"{human.jokes:,} held-out human",
        )
        for name, field, style in _TEXT_ROWS:
            table.add_row(
                name,
                *(_with_interval(getattr(metrics, field), style) for metrics in (generated, human)),
            )
        return table


def evaluate(
    folder: ModelFolder,
    held_out: HeldOut,
    config: EvaluationConfig,
    generator: ModelFolder | None = None,
) -> Report:
    """Measure a model on held-out jokes, and the jokes that it generates.

    Args:
        folder: The model. Its PyTorch weights are measured if it has them, else its graph.
        held_out: Jokes it was not trained on.
        config: How much to measure.
        generator: A folder of the same model with an OpenVINO graph, which generates the jokes; by
            default ``folder`` itself.

    Raises:
        ModelFolderError: If the model cannot be loaded or used, or has no graph to generate with.
        DataError: If no joke fits the model.
        ResourceError: If memory runs out.
    """
    held_out = held_out.sample(config.limit, config.seed)
    fingerprints = Fingerprints.load(folder.path)
    likelihood = _likelihood_metrics(folder, held_out, config, fingerprints)
    tries = _first_tries(generator or folder, config)
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
        _open_scorer(folder),
        folder.manifest.context_length,
        held_out.jokes,
        held_out.clusters,
        seed=config.seed,
        retrieval_limit=config.retrieval_limit,
        known=known,
    )


def _open_scorer(folder: ModelFolder) -> Scorer:
    """Load a folder's weights or, if it has none, its graph."""
    if not folder.has_weights and folder.has_openvino:
        return open_engine(folder, reproducible=True)
    tokenizer = JokeTokenizer.from_folder(folder.path, folder.manifest.template)
    return ModelScorer(load_causal_lm(folder), tokenizer)


def _first_tries(folder: ModelFolder, config: EvaluationConfig) -> Sequence[Joke | None]:
    if not config.generate:
        return []
    return first_tries(open_engine(folder, reproducible=True), config.generate, seed=config.seed)


def _notes(folder: ModelFolder, held_out: HeldOut, tries: Sequence[Joke | None]) -> Iterator[str]:
    if not folder.has_weights:
        yield "the likelihoods are those of the compressed graph: the folder has no PyTorch weights"
    if held_out.training is None:
        if any(tries):
            yield "originality needs a prepared folder, which contains the training jokes"
    elif folder.manifest.data.get("fingerprint") != held_out.facts["fingerprint"]:
        yield (
            "the model was trained on other data than this folder's, so it may know test jokes, "
            "and originality does not cover all of its training jokes"
        )
    if tries and not any(tries):
        yield f"none of {len(tries)} first tries is a joke"


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _cells(estimate: Estimate | None, style: str) -> tuple[str, str]:
    if estimate is None:
        return "–", ""
    low, high = style.format(estimate.low), style.format(estimate.high)
    return style.format(estimate.value), f"{low}–{high}"


def _with_interval(estimate: Estimate | None, style: str) -> str:
    value, interval = _cells(estimate, style)
    return f"{value} ({interval})" if interval else value
