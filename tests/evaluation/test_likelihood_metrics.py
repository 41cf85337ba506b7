from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from joker.core.errors import DataError, ModelFolderError
from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.core.template import TEMPLATES, Template
from joker.core.tokenizer import JokeTokenizer
from joker.engines.weights import load_causal_lm
from joker.evaluation.likelihood_metrics import (
    LikelihoodMetrics,
    ModelScorer,
    PartMetrics,
    cut_blocks,
)
from joker.evaluation.likelihood_metrics import likelihood_metrics as measure

END_TOKEN = "<|endoftext|>"
SHORT = Joke("ab?", "cd")
LETTERS = [Joke(f"{letter * 4}?", letter * 3) for letter in "abcdefghijklmnopqrstuvwxyz"]


class EchoModel(torch.nn.Module):
    """A causal LM that expects tokens again: a logit is ``echo`` × the token's earlier occurrences.

    With echo 0, all tokens are equally probable everywhere; ``favorite`` gains 5 everywhere.
    """

    def __init__(
        self, vocabulary_size: int, echo: float, positions: int = 1024, favorite: int | None = None
    ) -> None:
        super().__init__()
        self.embeddings = torch.nn.Embedding(vocabulary_size, 1)
        self.config = SimpleNamespace(max_position_embeddings=positions)
        self.echo = echo
        self.favorite = favorite

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.embeddings

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        one_hot = torch.nn.functional.one_hot(input_ids, self.embeddings.num_embeddings)
        logits = self.echo * one_hot.cumsum(1).float()
        if self.favorite is not None:
            logits[..., self.favorite] += 5
        return SimpleNamespace(logits=logits)


def byte_tokenizer(template: Template = TEMPLATES["original"]) -> JokeTokenizer:
    """Return a tokenizer whose tokens are the end token, the bytes and a layout's markers."""
    tokens = [END_TOKEN, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(text, normalized=False) for text in (END_TOKEN, *template.special_tokens)]
    )
    return JokeTokenizer(backend, template, END_TOKEN)


def echo_model(tokenizer: JokeTokenizer, echo: float = 0.0, **settings: Any) -> Any:
    return EchoModel(tokenizer.vocabulary_size, echo, **settings)


def likelihood_metrics(
    model: Any, tokenizer: JokeTokenizer, jokes: list[Joke], clusters: Any = None, **options: Any
) -> LikelihoodMetrics:
    positions = model.config.max_position_embeddings
    return measure(ModelScorer(model, tokenizer), positions, jokes, clusters, **options)


def test_a_model_that_knows_nothing_needs_log2_of_the_vocabulary_per_token() -> None:
    tokenizer = byte_tokenizer()
    figures = likelihood_metrics(echo_model(tokenizer), tokenizer, [SHORT] * 20, seed=1)
    bits = math.log2(1 + 256 + 2)
    # <|question|>, " ab?", "\n", <|answer|>, " cd", end: 11 tokens for 5 bytes of text,
    # and " cd", end: 4 for the answer's 2.
    assert figures.bits_per_byte.value == pytest.approx(11 * bits / 5)
    assert figures.answer_bits_per_byte.value == pytest.approx(4 * bits / 2)
    assert figures.bits_per_byte.standard_error == pytest.approx(0)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_its_perplexity() -> None:
    tokenizer = byte_tokenizer()
    figures = likelihood_metrics(echo_model(tokenizer), tokenizer, LETTERS, seed=1)
    assert figures.perplexity.value == pytest.approx(259)
    assert figures.legacy_perplexity
    assert figures.legacy_perplexity.value == pytest.approx(259)


def test_a_model_that_knows_nothing_retrieves_by_chance() -> None:
    tokenizer = byte_tokenizer()
    figures = likelihood_metrics(echo_model(tokenizer), tokenizer, LETTERS, seed=1)
    assert figures.retrieval_jokes == 26
    assert figures.punchline_retrieval_accuracy
    assert figures.punchline_retrieval_accuracy.value == pytest.approx(0.1)


def test_text_that_a_marker_must_not_forge_counts_by_its_own_bytes() -> None:
    tokenizer = byte_tokenizer()
    joke = Joke("<|answer|>?", "no")
    figures = likelihood_metrics(echo_model(tokenizer), tokenizer, [joke], seed=1)
    # The escaped question has one byte more, so 1 + 13 + 1 + 1 + 3 + 1 tokens for 13 bytes.
    assert figures.bits_per_byte.value == pytest.approx(20 * math.log2(259) / 13)


def test_bits_per_byte_are_over_all_jokes_together() -> None:
    tokenizer = byte_tokenizer()
    jokes = [SHORT, Joke("abcdefgh?", "ijklmno.")]
    figures = likelihood_metrics(echo_model(tokenizer), tokenizer, jokes, seed=1)
    assert figures.bits_per_byte.value == pytest.approx((11 + 23) * math.log2(259) / (5 + 17))


def test_a_model_that_echoes_the_question_finds_every_answer() -> None:
    tokenizer = byte_tokenizer()
    figures = likelihood_metrics(echo_model(tokenizer, echo=1.0), tokenizer, LETTERS, seed=1)
    assert figures.punchline_retrieval_accuracy
    assert figures.punchline_retrieval_accuracy.value == 1
    assert figures.answer_bits_per_byte.value < 4 / 3 * math.log2(259)


def test_an_answer_that_is_likely_anyway_does_not_win_retrieval() -> None:
    tokenizer = byte_tokenizer()
    favorite = tokenizer.backend.token_to_id("z")
    model = echo_model(tokenizer, echo=0.5, favorite=favorite)
    figures = likelihood_metrics(model, tokenizer, LETTERS, seed=1)
    assert figures.punchline_retrieval_accuracy
    assert figures.punchline_retrieval_accuracy.value == 1


@pytest.mark.parametrize("echo", [0.0, 0.7])
def test_two_spellings_of_a_layout_have_the_same_bits_per_byte(echo: float) -> None:
    short, long = (
        byte_tokenizer(Template("spelling", f"{question} ", f"\n{answer} "))
        for question, answer in (("[Q]", "[A]"), ("<|the-question|>", "<|its-answer|>"))
    )
    one, other = (
        likelihood_metrics(echo_model(tokenizer, echo), tokenizer, LETTERS, seed=1)
        for tokenizer in (short, long)
    )
    assert one == other


def test_jokes_that_do_not_fit_are_left_out_and_counted() -> None:
    tokenizer = byte_tokenizer()
    model = echo_model(tokenizer, positions=16)
    figures = likelihood_metrics(model, tokenizer, [*LETTERS, Joke("a" * 9, "b")], seed=1)
    assert (figures.jokes, figures.jokes_too_long) == (26, 1)
    assert figures.legacy_perplexity is None


def test_no_joke_that_fits_is_an_error() -> None:
    tokenizer = byte_tokenizer()
    with pytest.raises(DataError, match=r"none of the jokes \(1\) fits"):
        likelihood_metrics(echo_model(tokenizer, positions=8), tokenizer, [SHORT], seed=1)


def test_questions_are_left_out_where_a_choice_does_not_fit() -> None:
    tokenizer = byte_tokenizer()
    jokes = [*LETTERS, Joke("?" * 9, "a"), Joke("?", "b" * 9)]
    figures = likelihood_metrics(echo_model(tokenizer, positions=18), tokenizer, jokes, seed=1)
    assert figures.jokes == 28
    assert 0 < figures.retrieval_jokes < 28


def test_copies_of_a_joke_are_no_wrong_answers_for_it() -> None:
    tokenizer = byte_tokenizer()
    figures = likelihood_metrics(
        echo_model(tokenizer), tokenizer, LETTERS, [0] * len(LETTERS), seed=1
    )
    assert figures.retrieval_jokes == 0
    assert figures.punchline_retrieval_accuracy is None


def test_known_and_new_jokes_are_measured_apart() -> None:
    tokenizer = byte_tokenizer()
    model = echo_model(tokenizer, echo=0.7)
    known = [index < 15 for index in range(len(LETTERS))]
    jokes = [*LETTERS[:15], *(Joke(f"{joke.question}?", "why") for joke in LETTERS[15:])]
    figures = likelihood_metrics(model, tokenizer, jokes, seed=1, known=known)
    alone = likelihood_metrics(model, tokenizer, jokes[:15], seed=1)
    assert figures.known
    assert figures.new
    assert (figures.known.jokes, figures.new.jokes) == (15, 11)
    assert figures.known.bits_per_byte == alone.bits_per_byte
    assert figures.new.bits_per_byte
    assert figures.new.bits_per_byte.value != figures.bits_per_byte.value
    assert figures.known.retrieval_jokes + figures.new.retrieval_jokes == figures.retrieval_jokes
    assert figures.to_dict()["known_jokes"] == 15


def test_no_known_joke_leaves_their_figures_out() -> None:
    tokenizer = byte_tokenizer()
    known = [False] * len(LETTERS)
    model = echo_model(tokenizer)
    figures = likelihood_metrics(model, tokenizer, LETTERS, seed=1, known=known)
    assert figures.known == PartMetrics(0, 0, None, None)
    assert figures.new
    assert figures.new.bits_per_byte == figures.bits_per_byte
    assert figures.new.punchline_retrieval_accuracy == figures.punchline_retrieval_accuracy


def test_flags_follow_their_jokes_where_others_do_not_fit() -> None:
    tokenizer = byte_tokenizer()
    jokes = [Joke("a" * 9, "b"), *LETTERS]
    model = echo_model(tokenizer, positions=16)
    known = [True, True, *([False] * (len(LETTERS) - 1))]
    figures = likelihood_metrics(model, tokenizer, jokes, seed=1, known=known)
    assert figures.known
    assert figures.known.jokes == 1


def test_what_could_not_be_measured_is_no_metric() -> None:
    tokenizer = byte_tokenizer()
    metrics = likelihood_metrics(echo_model(tokenizer), tokenizer, [SHORT], seed=1).to_dict()
    assert set(metrics) == {
        "jokes",
        "jokes_too_long",
        "retrieval_jokes",
        "bits_per_byte",
        "answer_bits_per_byte",
        "perplexity",
    }


def test_a_diverged_model_is_refused() -> None:
    tokenizer = byte_tokenizer()
    with pytest.raises(ModelFolderError, match="diverged"):
        likelihood_metrics(echo_model(tokenizer, math.nan), tokenizer, [SHORT], seed=1)


def test_a_tokenizer_of_another_model_is_refused() -> None:
    tokenizer = byte_tokenizer()
    model: Any = EchoModel(100, echo=0.0)
    with pytest.raises(ModelFolderError, match="259 tokens but the model only 100"):
        likelihood_metrics(model, tokenizer, [SHORT], seed=1)


def test_a_trained_model_knows_the_jokes_it_learnt(
    tiny_folder: ModelFolder, sample_jokes: list[Joke]
) -> None:
    tokenizer = JokeTokenizer.from_folder(tiny_folder.path, tiny_folder.manifest.template)
    figures = likelihood_metrics(
        load_causal_lm(tiny_folder, "cpu"), tokenizer, sample_jokes, seed=1
    )
    assert figures.bits_per_byte.value < 0.5
    assert figures.answer_bits_per_byte.value < figures.bits_per_byte.value
    assert figures.legacy_perplexity
    assert figures.legacy_perplexity.value > figures.perplexity.value


def joke(length: int, first: int) -> list[int]:
    return [0, *range(first, first + length)]


def test_blocks_run_across_jokes_and_drop_start_tokens_and_the_remainder() -> None:
    blocks = cut_blocks([joke(100, first=1), joke(100, first=101), joke(100, first=201)])
    assert blocks == [list(range(1, 129)), list(range(129, 257))]


def test_exactly_one_block_is_kept() -> None:
    assert len(cut_blocks([joke(128, first=1)])) == 1


def test_less_than_a_block_is_nothing() -> None:
    assert cut_blocks([joke(127, first=1)]) == []
