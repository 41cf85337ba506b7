"""How well a model predicts people's jokes: metrics that need likelihoods but no generation.

``docs/metrics.md`` has the formulas and explains how to read them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from transformers import PreTrainedModel

from joker.core.errors import DataError, ModelFolderError
from joker.core.joke import Joke
from joker.core.similarity import normalize
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.engines.weights import token_log_probabilities
from joker.evaluation.bootstrap import Estimate, bootstrap_ratio

CHOICES = 10
CHANCE = 1 / CHOICES
_NEIGHBORS = 50
"""Wrong answers are drawn from this many that are nearest in length."""
BLOCK_TOKENS = 128
ORIGINAL_PERPLEXITY = 13.64
"""What the original reports for its best template on its own test split. It is not comparable: its
markers are plain text that costs almost nothing to predict, which lowers the value by a different
amount for each template; blocks let a joke attend to the jokes before it; and its two data sets
overlap, so it was trained on test jokes."""

_NO_QUESTION = "?"
"""The question in p(answer). Without any, a model trained punchline first takes the answer for that
of a riddle, which says little about answers in general."""

_PARTS = ("new", "known")


class Scorer(Protocol):
    """What computes likelihoods: `ModelScorer`, or any `joker.engines.protocol.Engine`."""

    tokenizer: JokeTokenizer

    def score(self, jokes: Sequence[EncodedJoke]) -> list[list[float]]:
        """Return the log-probabilities of every joke's tokens from its answer's first, in nats."""
        ...


@dataclass(frozen=True, slots=True)
class PartMetrics:
    """Metrics of some of the held-out jokes.

    Attributes:
        jokes: Jokes evaluated.
        retrieval_jokes: Questions asked for punchline retrieval.
        bits_per_byte: Bits for all of a joke's tokens per byte of its text; None without jokes.
        punchline_retrieval_accuracy: Share of own answers found among ten; None without questions.
    """

    jokes: int
    retrieval_jokes: int
    bits_per_byte: Estimate | None
    punchline_retrieval_accuracy: Estimate | None


@dataclass(frozen=True, slots=True)
class LikelihoodMetrics:
    """Metrics of held-out jokes.

    Attributes:
        jokes: Jokes evaluated.
        jokes_too_long: Jokes left out because they exceed the model's context.
        retrieval_jokes: Questions asked for punchline retrieval.
        bits_per_byte: Bits for all of a joke's tokens per byte of its text.
        answer_bits_per_byte: Bits for the answer given the question per byte of the answer.
        perplexity: Per token, one joke per context.
        legacy_perplexity: As the original computes it; None with less than one block of
            text, or a context shorter than a block.
        punchline_retrieval_accuracy: Share of own answers found among ten; None with too
            few different answers.
        new: Metrics of the jokes without a near-duplicate in training; None, like ``known``, if
            the training jokes are unknown.
        known: Metrics of the others.
    """

    jokes: int
    jokes_too_long: int
    retrieval_jokes: int
    bits_per_byte: Estimate
    answer_bits_per_byte: Estimate
    perplexity: Estimate
    legacy_perplexity: Estimate | None
    punchline_retrieval_accuracy: Estimate | None
    new: PartMetrics | None = None
    known: PartMetrics | None = None

    def items(self) -> Iterator[tuple[str, Estimate | int | None]]:
        """Yield the name and value of each metric; a part's are prefixed with the part's name."""
        for field in fields(self):
            if field.name not in _PARTS:
                yield field.name, getattr(self, field.name)
        for part in _PARTS:
            metrics = getattr(self, part)
            for field in fields(PartMetrics):
                yield f"{part}_{field.name}", getattr(metrics, field.name) if metrics else None

    def to_dict(self) -> dict[str, float]:
        """Return the metrics that could be measured, without their intervals."""
        return {
            name: value.value if isinstance(value, Estimate) else float(value)
            for name, value in self.items()
            if value is not None
        }


def likelihood_metrics(
    scorer: Scorer,
    context_length: int,
    jokes: Sequence[Joke],
    clusters: Sequence[int] | None = None,
    *,
    seed: int,
    retrieval_limit: int = 1000,
    known: Sequence[bool] | None = None,
) -> LikelihoodMetrics:
    """Measure a model on held-out jokes.

    Args:
        scorer: The model, with its tokenizer and template.
        context_length: Maximum number of tokens of a joke.
        jokes: Jokes it was not trained on, in a fixed order.
        clusters: Each joke's cluster of near-duplicates; by default each its own.
        seed: Decides what is drawn for retrieval and resampling.
        retrieval_limit: Maximum number of questions for punchline retrieval; 0 asks none.
        known: Which jokes have a near-duplicate in training; if given, they and the others are
            also measured separately.

    Raises:
        DataError: If no joke fits the model.
        ModelFolderError: If the model's probabilities are NaN.
        ResourceError: If memory runs out.
    """
    encoded = [scorer.tokenizer.encode(joke) for joke in jokes]
    kept = [index for index, joke in enumerate(encoded) if len(joke) <= context_length]
    if not kept:
        raise DataError(
            f"none of the jokes ({len(jokes)}) fits the model's context of {context_length} tokens"
        )
    fitting = [jokes[index] for index in kept]
    groups = [index if clusters is None else clusters[index] for index in kept]
    nats = -_score(scorer, [_score_all(encoded[index].input_ids) for index in kept])
    answer_nats = -_score(scorer, [encoded[index] for index in kept])
    tokens = [len(encoded[index]) - 1 for index in kept]
    answer_bytes = [len(joke.answer.encode()) for joke in fitting]
    rows = draw_choices(fitting, groups, limit=retrieval_limit, seed=seed)
    measured = _Measured(
        nats / math.log(2),
        np.array([joke.byte_count for joke in fitting]),
        *_retrieval_hits(scorer, context_length, fitting, rows),
        seed,
    )
    flags = None if known is None else np.asarray(known, dtype=np.bool_)[kept]
    return LikelihoodMetrics(
        jokes=len(fitting),
        jokes_too_long=len(jokes) - len(fitting),
        retrieval_jokes=len(measured.hits),
        bits_per_byte=bootstrap_ratio(measured.bits, measured.byte_counts, seed=seed),
        answer_bits_per_byte=bootstrap_ratio(answer_nats / math.log(2), answer_bytes, seed=seed),
        perplexity=bootstrap_ratio(nats, tokens, seed=seed, transform=np.exp),
        legacy_perplexity=_legacy_perplexity(scorer, context_length, encoded, seed),
        punchline_retrieval_accuracy=_mean(measured.hits, seed),
        new=None if flags is None else measured.part(~flags),
        known=None if flags is None else measured.part(flags),
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was measured of each joke, and of each question asked for retrieval.

    Attributes:
        bits: Bits for all tokens of each joke.
        byte_counts: Bytes of each joke's text.
        asked: Index of the joke that each question belongs to.
        hits: Whether each question's own answer was found.
        seed: Decides the resamples.
    """

    bits: NDArray[np.float64]
    byte_counts: NDArray[np.int64]
    asked: NDArray[np.intp]
    hits: NDArray[np.float64]
    seed: int

    def part(self, chosen: NDArray[np.bool_]) -> PartMetrics:
        """Return the metrics of the chosen jokes alone."""
        bits, byte_counts = self.bits[chosen], self.byte_counts[chosen]
        chosen_hits = self.hits[chosen[self.asked]]
        return PartMetrics(
            jokes=len(bits),
            retrieval_jokes=len(chosen_hits),
            bits_per_byte=bootstrap_ratio(bits, byte_counts, seed=self.seed) if len(bits) else None,
            punchline_retrieval_accuracy=_mean(chosen_hits, self.seed),
        )


def _mean(values: NDArray[np.float64], seed: int) -> Estimate | None:
    return bootstrap_ratio(values, seed=seed) if len(values) else None


class ModelScorer:
    """Scores jokes with PyTorch.

    Args:
        model: The causal LM.
        tokenizer: Its tokenizer and template.

    Raises:
        ModelFolderError: If they do not belong together.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: JokeTokenizer) -> None:
        entries = len(cast(torch.Tensor, model.get_input_embeddings().weight))
        if tokenizer.vocabulary_size > entries:
            raise ModelFolderError(
                f"the tokenizer has {tokenizer.vocabulary_size} tokens but the model only "
                f"{entries}; they do not belong together"
            )
        self.tokenizer = tokenizer
        self._model = model

    def score(self, jokes: Sequence[EncodedJoke]) -> list[list[float]]:
        """Return the log-probabilities of every joke's tokens from its answer's first, in nats."""
        scores = token_log_probabilities(self._model, [joke.input_ids for joke in jokes])
        pairs = zip(jokes, scores, strict=True)
        return [tokens[joke.answer_start - 1 :].tolist() for joke, tokens in pairs]


def _score(scorer: Scorer, jokes: Sequence[EncodedJoke]) -> NDArray[np.float64]:
    """Return log p(answer, end | preceding tokens) of every joke, in nats."""
    scores = np.array(list(map(math.fsum, scorer.score(jokes))), dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ModelFolderError(
            "the model's probabilities are not numbers (NaN): its training diverged; "
            "train it again with a lower learning rate"
        )
    return scores


def _score_all(input_ids: list[int]) -> EncodedJoke:
    """Return a joke of which a scorer scores every token but the first."""
    return EncodedJoke(input_ids, answer_start=1)


def _legacy_perplexity(
    scorer: Scorer, context_length: int, jokes: Sequence[EncodedJoke], seed: int
) -> Estimate | None:
    blocks = cut_blocks(joke.input_ids for joke in jokes)
    if not blocks or context_length < BLOCK_TOKENS:
        return None
    losses = -_score(scorer, list(map(_score_all, blocks))) / (BLOCK_TOKENS - 1)
    return bootstrap_ratio(losses, seed=seed, transform=np.exp)


def _retrieval_hits(
    scorer: Scorer, context_length: int, jokes: Sequence[Joke], rows: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Rank answers by log p(answer | question) - log p(answer), for the choices that fit.

    Returns:
        The indices of the jokes whose questions were asked, and whether each was a hit.
    """
    encode = scorer.tokenizer.encode
    asked, pairs = [], []
    for row in rows:
        question = jokes[row[0]].question
        encoded = [encode(Joke(question, jokes[choice].answer)) for choice in row]
        if all(len(joke) <= context_length for joke in encoded):
            asked.append(row)
            pairs += encoded
    choices = np.array(asked, dtype=np.intp).reshape(-1, CHOICES)
    answers, inverse = np.unique(choices, return_inverse=True)
    prior = _score(scorer, [encode(Joke(_NO_QUESTION, jokes[index].answer)) for index in answers])
    conditional = _score(scorer, pairs).reshape(-1, CHOICES)
    return choices[:, 0], hits(conditional - prior[inverse].reshape(-1, CHOICES))


def draw_choices(
    jokes: Sequence[Joke], clusters: Sequence[int], *, limit: int, seed: int
) -> NDArray[np.intp]:
    """Draw nine wrong answers for each joke, up to a limit.

    They are drawn from the 50 answers nearest in length that differ from one another and
    from those of the joke's own cluster of near-duplicates.

    Args:
        jokes: Where questions and answers come from.
        clusters: Each joke's cluster.
        limit: Maximum number of questions, chosen at random.
        seed: Seed of all draws.

    Returns:
        Indices into ``jokes``: for each question a row of ten, the joke's own first; no rows if
        there are too few different answers.
    """
    rng = np.random.default_rng(seed)
    cluster_of = np.asarray(clusters)
    _, answer_of = np.unique(
        [normalize(joke.answer) or joke.answer for joke in jokes], return_inverse=True
    )
    order = rng.permutation(len(jokes))
    _, first = np.unique(answer_of[order], return_index=True)
    pool = order[np.sort(first)]  # one joke for each answer, in random order
    lengths = np.array([len(joke.answer.encode()) for joke in jokes])
    rows = []
    for joke in np.sort(rng.permutation(len(jokes))[:limit]):
        own_answers = answer_of[cluster_of == cluster_of[joke]]
        others = pool[~np.isin(answer_of[pool], own_answers)]
        if len(others) < CHOICES - 1:
            continue
        distance = np.abs(lengths[others] - lengths[joke])
        nearest = others[np.argsort(distance, kind="stable")[:_NEIGHBORS]]
        rows.append([joke, *rng.choice(nearest, CHOICES - 1, replace=False)])
    return np.array(rows, dtype=np.intp).reshape(-1, CHOICES)


def hits(scores: ArrayLike) -> NDArray[np.float64]:
    """Return for each question whether its own answer, the first, has the highest score.

    Args:
        scores: log p(answer | question) - log p(answer), of shape (questions, choices).

    Returns:
        1 for a hit, 0 for a miss, 1 / k for a tie of k answers.
    """
    table = np.asarray(scores, dtype=np.float64)
    best = table == table.max(axis=1, keepdims=True)
    shares: NDArray[np.float64] = best[:, 0] / best.sum(axis=1)
    return shares


T = TypeVar("T")


def cut_blocks(jokes: Iterable[Sequence[T]], block_tokens: int = BLOCK_TOKENS) -> list[list[T]]:
    """Join jokes without their start tokens and cut the result into blocks; drop the remainder.

    Source: ``group_texts`` of Transformers' ``run_clm.py``.
    """
    tokens = list(chain.from_iterable(joke[1:] for joke in jokes))
    starts = range(0, len(tokens) - block_tokens + 1, block_tokens)
    return [tokens[start : start + block_tokens] for start in starts]
