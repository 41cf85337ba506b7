from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from joker.core.errors import TokenizerError
from joker.core.joke import Joke
from joker.core.template import TEMPLATES, Template
from joker.core.tokenizer import FAILS, WORKS, JokeTokenizer
from tests.core.reference import render

END = "<|endoftext|>"
JOKE = Joke("Why was the ruler smug?", "It knew where to draw the line.")


def make_backend(template: Template) -> Tokenizer:
    """Return a byte-level tokenizer of single bytes that holds the layout's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = [AddedToken(text, normalized=False) for text in (END, *template.special_tokens)]
    backend.add_special_tokens(special)
    return backend


@pytest.fixture(
    params=[
        *TEMPLATES.values(),
        TEMPLATES["words"].with_markers("special"),
        replace(TEMPLATES["original"], punchline_first=True),
    ],
    ids=lambda layout: layout.label + "-reversed" * layout.punchline_first,
)
def template(request: pytest.FixtureRequest) -> Template:
    layout: Template = request.param
    return layout


@pytest.fixture
def tokenizer(template: Template) -> JokeTokenizer:
    return JokeTokenizer(make_backend(template), template, END)


def test_an_encoded_joke_is_the_rendered_text_between_start_and_end(
    tokenizer: JokeTokenizer,
) -> None:
    encoded = tokenizer.encode(JOKE)
    assert encoded.input_ids[0] == encoded.input_ids[-1] == tokenizer.end_id
    assert tokenizer.decode(encoded.input_ids) == render(tokenizer.template, JOKE)
    assert tokenizer.decode(encoded.input_ids[encoded.answer_start :]).strip() == JOKE.answer


REVERSED = [
    JokeTokenizer(make_backend(layout), replace(layout, punchline_first=True), END)
    for template in TEMPLATES.values()
    for layout in (template.with_markers("special"), template.with_markers("plain"))
]
TOKENIZERS = [JokeTokenizer(make_backend(t), t, END) for t in TEMPLATES.values()] + REVERSED
FORGERIES = st.sampled_from(
    ["<|question|>", "\nQuestion: ", "\n<|answer|> ", END, "Answer:", "\\", "é🦄"]
)
TEXTS = st.lists(st.text(st.characters(codec="utf-8")) | FORGERIES).map("".join)


@given(st.sampled_from(TOKENIZERS), TEXTS, TEXTS)
def test_every_joke_survives_the_round_trip(
    tokenizer: JokeTokenizer, question: str, answer: str
) -> None:
    joke = Joke.from_text(question, answer)
    if joke is not None:
        assert tokenizer.parse(tokenizer.encode(joke).input_ids) == joke


@given(st.sampled_from(TOKENIZERS), TEXTS)
def test_a_prompt_cannot_forge_structure(tokenizer: JokeTokenizer, prompt: str) -> None:
    ids = tokenizer.encode_prompt(prompt)
    assert ids.count(tokenizer.end_id) == 1
    for marker in tokenizer.template.special_tokens:
        assert ids.count(tokenizer.backend.token_to_id(marker)) <= 1
    if joke := Joke.from_text(prompt, JOKE.answer):
        assert ids == tokenizer.encode(joke).input_ids[: len(ids)]


@given(st.sampled_from(REVERSED), TEXTS, TEXTS)
def test_every_joke_survives_the_round_trip_from_its_punchline(
    tokenizer: JokeTokenizer, question: str, answer: str
) -> None:
    joke = Joke.from_text(question, answer)
    if joke is not None:
        ids = tokenizer.encode_punchline_first(joke).input_ids
        assert tokenizer.parse(ids) == joke
        assert ids.count(tokenizer.end_id) == 2
        for marker in tokenizer.template.special_tokens:
            assert ids.count(tokenizer.backend.token_to_id(marker)) == 1


@pytest.mark.parametrize("tokenizer", REVERSED, ids=lambda one: one.template.label)
def test_without_a_question_a_joke_begins_with_its_punchline(tokenizer: JokeTokenizer) -> None:
    told = tokenizer.encode_punchline_first(JOKE)
    ids = tokenizer.encode_prompt("  ")
    assert ids == told.input_ids[: len(ids)]
    assert tokenizer.decode(ids) == tokenizer.template.answer_marker
    asked = tokenizer.encode_prompt(JOKE.question)
    assert asked == tokenizer.encode(JOKE).input_ids[: len(asked)]
    assert told.answer_start == len(told)  # nothing in it answers a question
    assert tokenizer.decode(told.input_ids).index(JOKE.answer) < tokenizer.decode(
        told.input_ids
    ).index(JOKE.question)


@pytest.mark.parametrize("tokenizer", REVERSED, ids=lambda one: one.template.label)
def test_a_joke_from_its_punchline_tells_ever_more_of_its_question(
    tokenizer: JokeTokenizer,
) -> None:
    joke = Joke("Why was the naïve 🦄 smug?", JOKE.answer)
    ids = tokenizer.encode_punchline_first(joke).input_ids
    starts = [tokenizer.parse_partial(ids[:size]) for size in range(len(ids) + 1)]
    assert {answer for _, answer in starts} == {""}
    assert all(joke.question.startswith(question) for question, _ in starts)
    assert [len(question) for question, _ in starts] == sorted(len(one) for one, _ in starts)
    assert starts[-1] == (joke.question, "")


@pytest.mark.parametrize("hint", ["Why was", "unicorns"])
@pytest.mark.parametrize("tokenizer", REVERSED, ids=lambda one: one.template.label)
def test_a_hint_stands_before_the_punchline_and_is_no_part_of_the_joke(
    tokenizer: JokeTokenizer, hint: str
) -> None:
    told = tokenizer.encode_punchline_first(JOKE, hint)
    prompt = tokenizer.encode_prompt(hint)
    assert told.input_ids[: len(prompt)] == prompt
    assert told.learned_from == len(prompt)
    assert tokenizer.decode(prompt).startswith(f"{tokenizer.template.question_marker} {hint}")
    assert tokenizer.decode(prompt).endswith(tokenizer.template.answer_marker)
    assert tokenizer.parse(told.input_ids) == JOKE
    starts = [tokenizer.parse_partial(told.input_ids[:size]) for size in range(len(told) + 1)]
    behind = starts[len(prompt) :]
    assert {answer for _, answer in starts} == {""}
    assert behind[0] == ("", "")
    assert behind[-1] == (JOKE.question, "")
    assert all(JOKE.question.startswith(question) for question, _ in behind)


@pytest.mark.parametrize("works", [True, False])
def test_a_verdict_follows_the_end_of_a_joke_and_is_all_there_is_to_learn(
    template: Template, works: bool
) -> None:
    backend = make_backend(template)
    backend.add_special_tokens([WORKS, FAILS])
    tokenizer = JokeTokenizer(backend, template, END)
    assert tokenizer.has_critic
    verdict = tokenizer.encode_verdict(JOKE, works)
    *joke, last = verdict.input_ids
    assert joke == tokenizer.encode(JOKE).input_ids
    assert last == backend.token_to_id(WORKS if works else FAILS)
    assert verdict.learned_from == verdict.answer_start == len(joke)
    assert verdict.weight > tokenizer.encode(JOKE).weight
    assert tokenizer.parse(verdict.input_ids) == JOKE


def test_a_critic_needs_both_verdicts(tokenizer: JokeTokenizer) -> None:
    assert not tokenizer.has_critic
    backend = make_backend(tokenizer.template)
    backend.add_special_tokens([WORKS])
    assert not JokeTokenizer(backend, tokenizer.template, END).has_critic


def test_people_cannot_spell_a_verdict() -> None:
    template = TEMPLATES["original"]
    backend = make_backend(template)
    backend.add_special_tokens([WORKS, FAILS])
    tokenizer = JokeTokenizer(backend, template, END)
    joke = Joke(f"Why {WORKS}?", f"So {FAILS}.")
    ids = tokenizer.encode(joke).input_ids
    assert not {backend.token_to_id(WORKS), backend.token_to_id(FAILS)} & set(ids)
    assert tokenizer.parse(ids) == joke


@pytest.mark.parametrize("prompt", ["", "Why was", "Why was the ruler"])
def test_a_prompt_begins_as_the_joke_does(tokenizer: JokeTokenizer, prompt: str) -> None:
    if tokenizer.template.punchline_first:
        pytest.skip("the punchline comes first")
    ids = tokenizer.encode_prompt(f" {prompt} ")
    assert ids == tokenizer.encode(JOKE).input_ids[: len(ids)]
    text = f"{tokenizer.template.question_prefix}{prompt}"
    assert tokenizer.decode(ids).strip() == text.strip()


def test_a_whole_question_is_followed_by_the_answer_marker(tokenizer: JokeTokenizer) -> None:
    ids = tokenizer.encode_prompt(JOKE.question)
    assert ids == tokenizer.encode(JOKE).input_ids[: len(ids)]
    assert tokenizer.decode(ids).endswith(tokenizer.template.answer_marker)


def test_an_answer_alone_has_no_question(tokenizer: JokeTokenizer) -> None:
    alone, whole = tokenizer.encode_answer_alone(JOKE), tokenizer.encode(JOKE)
    assert alone.input_ids[alone.answer_start :] == whole.input_ids[whole.answer_start :]
    assert tokenizer.decode(alone.input_ids).strip().startswith(tokenizer.template.answer_marker)


def test_half_finished_ids_tell_no_joke(tokenizer: JokeTokenizer) -> None:
    ids = tokenizer.encode(JOKE).input_ids
    assert tokenizer.parse(ids[:-1]) is None
    assert tokenizer.parse([]) is None


def test_a_start_token_of_its_own_begins_a_joke(template: Template) -> None:
    backend = make_backend(template)
    backend.add_special_tokens(["<s>"])
    tokenizer = JokeTokenizer(backend, template, END, "<s>")
    ids = tokenizer.encode(JOKE).input_ids
    assert (ids[0], ids[-1]) == (tokenizer.start_id, tokenizer.end_id)
    assert tokenizer.parse(ids) == JOKE


def test_the_given_backend_stays_as_it_is() -> None:
    backend = make_backend(TEMPLATES["original"])
    JokeTokenizer(backend, TEMPLATES["original"], END)
    assert not backend.encode_special_tokens


def test_a_layout_that_the_tokenizer_does_not_hold_is_refused() -> None:
    backend = make_backend(TEMPLATES["original"])
    with pytest.raises(TokenizerError, match="joke"):
        JokeTokenizer(backend, TEMPLATES["separator"], END)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[object], Path]:
    """Return a function that saves a tokenizer with a given tokenizer_config.json."""

    def write(config: object) -> Path:
        make_backend(TEMPLATES["original"]).save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize("end", [END, {"content": END, "lstrip": False}])
def test_a_saved_tokenizer_is_read(save: Callable[[object], Path], end: object) -> None:
    tokenizer = JokeTokenizer.from_folder(save({"eos_token": end}), TEMPLATES["original"])
    assert tokenizer.parse(tokenizer.encode(JOKE).input_ids) == JOKE


@pytest.mark.parametrize("config", [{}, {"eos_token": None}, {"eos_token": ""}])
def test_a_tokenizer_without_an_end_token_is_refused(
    save: Callable[[object], Path], config: object
) -> None:
    with pytest.raises(TokenizerError, match="end-of-text"):
        JokeTokenizer.from_folder(save(config), TEMPLATES["original"])


def test_a_damaged_tokenizer_is_refused(save: Callable[[object], Path]) -> None:
    folder = save({"eos_token": END})
    (folder / "tokenizer.json").write_text("{", "utf-8")
    with pytest.raises(TokenizerError, match="cannot read"):
        JokeTokenizer.from_folder(folder, TEMPLATES["original"])
