from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from joker.core.errors import ConfigError, ModelFolderError
from joker.core.joke import Joke
from joker.core.model_folder import ModelFolder
from joker.core.template import TEMPLATES
from joker.core.tokenizer import JokeTokenizer
from joker.data.prepared import PreparedData
from joker.engines.weights import load_pretrained
from joker.training.base_model import open_base
from joker.training.vocabulary import (
    END_OF_TEXT,
    read_gguf_tokenizer,
    shrink_vocabulary,
    train_tokenizer,
)
from tests.command import joker
from tests.training.gguf_files import SENTENCES, make_llama, make_tokenizer, write_gguf

transformers: Any = importlib.import_module("transformers")  # its classes are half typed

RARE = "The harbourmaster quietly polished seventeen peculiar barometers."
JOKES = [
    "Why did the bicycle lie down? It was two tired.",
    "Why was the broom late again? It swept in.",
    "What do you call a punctual owl? A night watch.",
]
WORDS = sorted({word for text in [*JOKES, RARE] for word in text.split()})
FULL = train_tokenizer([*JOKES * 3, RARE, RARE], 700)


def make_model(kind: str = "tied", entries: int = len(FULL)) -> Any:
    """Return a small random model with this many entries."""
    torch.manual_seed(2)
    if kind == "tied":
        shape = {"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 64}
        config = transformers.GPT2Config(vocab_size=entries, **shape)
        return transformers.GPT2LMHeadModel(config).eval()
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=entries,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=False,
        )
    ).eval()


def vocabulary(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return dict(tokenizer.backend_tokenizer.get_vocab())


SMALL = shrink_vocabulary(make_model(), FULL, JOKES, 340)
KEPT = vocabulary(SMALL)


def test_what_the_texts_use_is_kept_and_the_size_is_held() -> None:
    used = {token for text in JOKES for token in FULL.tokenize(text)}
    assert used <= KEPT.keys()
    assert len(SMALL) <= 340
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= KEPT.keys()
    assert sorted(KEPT.values()) == list(range(len(KEPT)))
    assert "Ġbarometers" in vocabulary(FULL)
    assert "Ġbarometers" not in KEPT


@given(words=st.lists(st.sampled_from(WORDS), max_size=12), space=st.sampled_from([" ", "  ", ""]))
def test_a_text_whose_tokens_are_all_kept_has_the_same_ones(words: list[str], space: str) -> None:
    text = space.join(words)
    before = FULL.tokenize(text)
    if KEPT.keys() >= set(before):
        assert SMALL.tokenize(text) == before


@given(text=st.text(max_size=60) | st.sampled_from([RARE, END_OF_TEXT, "🙂 naïve 日本\n\t"]))
def test_any_text_survives_the_round_trip(text: str) -> None:
    backend = SMALL.backend_tokenizer
    ids = backend.encode(text, add_special_tokens=False).ids
    assert backend.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_the_kept_entries_have_the_logits_they_had(kind: str) -> None:
    model = make_model(kind)
    texts = [JOKES[0]] * 9
    before = torch.tensor([FULL.encode(JOKES[0], add_special_tokens=False)])
    with torch.no_grad():
        old = model(before).logits
    small = shrink_vocabulary(model, FULL, texts, 300)
    after = torch.tensor([small.encode(JOKES[0], add_special_tokens=False)])
    assert after.shape == before.shape
    assert not after.equal(before)
    with torch.no_grad():
        new = model(after).logits
    kept = sorted(vocabulary(small), key=vocabulary(small).__getitem__)
    torch.testing.assert_close(new, old[..., [vocabulary(FULL)[token] for token in kept]])
    embeddings: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    assert (head.weight is embeddings.weight) == (kind == "tied")
    assert model.config.vocab_size == len(embeddings.weight) == len(head.weight) == len(small)


def test_start_and_end_are_kept_and_other_special_tokens_only_if_asked() -> None:
    full = train_tokenizer(JOKES, 300)
    full.add_special_tokens({"additional_special_tokens": ["<|joke|>", "<|chat|>"]})
    model = make_model(entries=len(full))
    rows: torch.Tensor = model.get_input_embeddings().weight.detach().clone()
    # A joke that spells a special token is text.
    small = shrink_vocabulary(model, full, ["<|chat|>"] * 5, 280, keep=["<|joke|>", "<|new|>"])
    assert (small.bos_token, small.eos_token) == (END_OF_TEXT, END_OF_TEXT)
    assert (
        "<|joke|>"
        in small.backend_tokenizer.get_added_tokens_decoder()[
            small.convert_tokens_to_ids("<|joke|>")
        ].content
    )
    assert not {"<|chat|>", "<|new|>"} & vocabulary(small).keys()
    learned = model.get_input_embeddings().weight[small.convert_tokens_to_ids("<|joke|>")]
    assert learned.equal(rows[full.convert_tokens_to_ids("<|joke|>")])


def test_a_tokenizer_without_a_start_token_stays_one() -> None:
    full = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=train_tokenizer(JOKES, 300).backend_tokenizer, eos_token=END_OF_TEXT
    )
    small = shrink_vocabulary(make_model(entries=len(full)), full, JOKES, 280)
    assert (small.bos_token, small.eos_token) == (None, END_OF_TEXT)


def test_truncation_hides_no_text_and_is_left_behind() -> None:
    state = json.loads(train_tokenizer([RARE] * 5, 400).backend_tokenizer.to_str())
    backend = Tokenizer.from_str(json.dumps(state))
    backend.enable_truncation(1)
    backend.enable_padding(length=8, pad_token=END_OF_TEXT)
    full = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END_OF_TEXT)  # type: ignore[no-untyped-call]
    small = shrink_vocabulary(make_model(entries=len(full)), full, [RARE], 330)
    plain = small.backend_tokenizer.encode(RARE)
    assert small.backend_tokenizer.decode(plain.ids) == RARE


@pytest.mark.parametrize("size", [0, 10, 256])
def test_a_size_without_room_for_the_bytes_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="257 or more"):
        shrink_vocabulary(make_model(), FULL, JOKES, size)


@pytest.mark.parametrize("byte_level", [True, False])
def test_another_kind_of_tokenizer_is_refused(byte_level: bool) -> None:
    words = {word: number for number, word in enumerate(["<unk>", *WORDS])}
    backend = Tokenizer(models.WordLevel(words, "<unk>") if byte_level else models.BPE(words, []))
    backend.pre_tokenizer = (
        pre_tokenizers.ByteLevel() if byte_level else pre_tokenizers.WhitespaceSplit()
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<unk>")  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigError, match="byte-level BPE"):
        shrink_vocabulary(make_model(), tokenizer, JOKES, 300)


Write = Callable[..., Path]

BPE = make_tokenizer()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a GGUF file in the manner of SmolLM2's; do not change it."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, make_llama(BPE.get_vocab_size()), BPE)
    return path


@pytest.fixture(scope="module")
def backend(file: Path) -> Tokenizer:
    """Return the tokenizer read from `file`."""
    return read_gguf_tokenizer(file).backend_tokenizer


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file whose tokenizer has some fields changed."""

    def make(tokenizer: Tokenizer = BPE, /, **changes: Any) -> Path:
        path = tmp_path / "changed.gguf"
        write_gguf(path, make_llama(tokenizer.get_vocab_size()), tokenizer, **changes)
        return path

    return make


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("quantization", ["F32", "Q8_0", "Q4_1"])
def test_the_weights_are_the_files(tmp_path: Path, quantization: str, tied: bool) -> None:
    model = make_llama(400, tied=tied)
    path = tmp_path / "model.GGUF"
    write_gguf(path, model, BPE, GGMLQuantizationType[quantization])
    read: Any = load_pretrained(str(path))
    read.eval()
    ids = torch.arange(3, 43).view(2, 20)
    with torch.no_grad():
        expected, found = model(ids).logits, read(ids).logits
    assert found.dtype == torch.float32
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_file_is_found_by_its_name_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert open_base(file.name, TEMPLATES["original"], []).context_length == 256


@pytest.mark.parametrize(
    "text", [*SENTENCES, "In 1995 it cost $12.50!", "  naïve\n\n日本 🙂\t\x00", "isn't I'm 三"]
)
def test_text_has_the_tokens_of_the_bpe_it_was_made_of(backend: Tokenizer, text: str) -> None:
    assert backend.encode(text).ids == BPE.encode(text).ids


@given(text=st.text(max_size=40))
def test_any_text_survives_the_round_trip_of_a_file(backend: Tokenizer, text: str) -> None:
    ids = backend.encode(text).ids
    assert ids == BPE.encode(text).ids
    assert backend.decode(ids, skip_special_tokens=False) == text


def test_nothing_stands_between_words(file: Path) -> None:
    tokens = read_gguf_tokenizer(file).tokenize("It was two tired to go on.")
    assert "".join(tokens) == "ItĠwasĠtwoĠtiredĠtoĠgoĠon."


@pytest.mark.parametrize(("pre", "apart"), [("smollm", True), ("gpt-2", False), (None, False)])
def test_the_pre_tokenizer_decides_about_digits(write: Write, pre: str | None, apart: bool) -> None:
    path = write(make_tokenizer(digits_apart=False), pre=pre)
    tokens = read_gguf_tokenizer(path).tokenize("1995")
    assert "".join(tokens) == "1995"
    assert (len(tokens) == 4) == apart


NO_END_OF_TEXT = make_tokenizer(control=("<unk>", "<|im_start|>", "<|im_end|>"))


@pytest.mark.parametrize(
    ("tokenizer", "changes", "start", "end"),
    [
        (BPE, {}, END_OF_TEXT, END_OF_TEXT),
        (BPE, {"bos_token_id": None, "eos_token_id": None}, END_OF_TEXT, END_OF_TEXT),
        (NO_END_OF_TEXT, {}, "<|im_start|>", "<|im_end|>"),
        (NO_END_OF_TEXT, {"bos_token_id": None}, "<|im_end|>", "<|im_end|>"),
    ],
    ids=["end of text", "unnamed end of text", "start and end", "end alone"],
)
def test_start_and_end_are_those_of_pretraining(
    write: Write, tokenizer: Tokenizer, changes: dict[str, Any], start: str, end: str
) -> None:
    path = write(tokenizer, **changes)
    read = read_gguf_tokenizer(path)
    assert (read.bos_token, read.eos_token) == (start, end)
    ids = open_base(str(path), TEMPLATES["original"], []).joke_tokenizer.encode(Joke("a", "b"))
    vocabulary = tokenizer.get_vocab()
    assert (ids.input_ids[0], ids.input_ids[-1]) == (vocabulary[start], vocabulary[end])


def test_control_tokens_are_special_and_user_defined_ones_are_text(write: Write) -> None:
    kinds = [1] * BPE.get_vocab_size()
    place = BPE.token_to_id("z")
    kinds[1], kinds[place] = 3, 4
    names = sorted(BPE.get_vocab(), key=BPE.get_vocab().__getitem__)
    names[place] = "bicycle owl"
    backend = read_gguf_tokenizer(write(token_type=kinds, tokens=names)).backend_tokenizer
    ids = backend.encode("A bicycle owl", add_special_tokens=False).ids
    assert ids[-1] == place
    assert backend.decode([1, *ids], skip_special_tokens=True) == "A bicycle owl"


def test_opening_a_file_says_nothing(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    notices: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notices.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("transformers").addHandler(handler)
    try:
        open_base(str(file), TEMPLATES["original"], [])
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert notices == []
    assert tuple(capfd.readouterr()) == ("", "")


def _one_sentence(path: Path, named: str) -> None:
    with pytest.raises(ModelFolderError, match=named) as caught:
        open_base(str(path), TEMPLATES["original"], [])
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    _one_sentence(tmp_path / "missing.gguf", "no GGUF file")
    with pytest.raises(ModelFolderError, match=r"missing\.gguf"):
        load_pretrained(str(tmp_path / "missing.gguf"))


@pytest.mark.parametrize("share", [0, 1e-5, 1e-4, 1e-3, 0.02, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(file: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "part.gguf"
    whole = file.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    _one_sentence(path, "cannot read")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("Why did the bicycle lie down? It was two tired.\n" * 50, encoding="utf-8")
    _one_sentence(path, "cannot read")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "llama"}, "'llama'"),
        ({"model": None}, "None"),
        ({"pre": "qwen2"}, "'qwen2'"),
        ({"merges": ["never seen"]}, "cannot read the tokenizer"),
        ({"tokens": ["a", "b"], "merges": None, "eos_token_id": 2}, "no end-of-text"),
        ({"tokens": ["a", "b"], "merges": None, "eos_token_id": None}, "no end-of-text"),
    ],
)
def test_a_tokenizer_that_is_not_known_is_refused(
    write: Write, changes: dict[str, Any], named: str
) -> None:
    _one_sentence(write(**changes), named)


@pytest.mark.integration
def test_a_model_learns_jokes_from_a_file(
    file: Path, prepared: PreparedData, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = joker(
        *("train", "--base", file, "--data", prepared.path, "--out", tmp_path / "model"),
        *("--vocabulary-size", "300", "--freeze-layers", "1", "--punchline-first"),
        *("--max-steps", "2", "--batch-size", "2", "--compile", "never", "--report-to", "none"),
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr + capfd.readouterr().err
    assert "GGUF tensors" not in said
    assert "multivariate" not in said
    folder = ModelFolder.open(tmp_path / "model")
    assert folder.manifest.template.punchline_first
    tokenizer = JokeTokenizer.from_folder(folder.path, folder.manifest.template)
    assert tokenizer.vocabulary_size == 302
    joke = Joke("Why did the kettle leave?", "It was about to boil over.")
    assert tokenizer.parse(tokenizer.encode(joke).input_ids) == joke
    before, after = (load_pretrained(str(path)).state_dict() for path in (file, folder.path))
    layer = "model.layers.{}.mlp.up_proj.weight"
    assert after[layer.format(0)].equal(before[layer.format(0)])
    assert not after[layer.format(1)].equal(before[layer.format(1)])


@pytest.mark.skipif(
    "JOKER_TEST_GGUF" not in os.environ,
    reason="JOKER_TEST_GGUF names no SmolLM2 file, which is 98 MB",
)
def test_smollm2_knows_its_capitals() -> None:
    path = os.environ["JOKER_TEST_GGUF"]
    tokenizer = read_gguf_tokenizer(Path(path))
    model: Any = load_pretrained(path)
    model.eval()
    text = "The capital of France is Paris, and the capital of Germany is Berlin."
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    tokens = torch.tensor([tokenizer.bos_token_id, *ids])
    with torch.no_grad():
        logits = model(tokens[None]).logits[0, :-1]
    losses = functional.cross_entropy(logits, tokens[1:], reduction="none")
    assert losses[2:].mean() < 1.5  # behind "The capital", which may begin anything
