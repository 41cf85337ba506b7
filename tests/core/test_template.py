import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joker.core.errors import InputError, TemplateError
from joker.core.joke import Joke
from joker.core.template import TEMPLATES, Template, load_template
from tests.core.reference import render

JOKE = Joke("Why did the bicycle lie down?", "It was two tired.")
LAYOUTS = [t.with_markers(kind) for t in TEMPLATES.values() for kind in ("special", "plain")]
REVERSED = [replace(layout, punchline_first=True) for layout in LAYOUTS]
fragments = st.sampled_from(["\\", "\n", " ", "A\\nswer:", "?", "why", "<|endoftext|>"])
markers = st.sampled_from([text for layout in LAYOUTS for text in layout.marker_texts])
texts = st.lists(st.one_of(fragments, markers, st.text(max_size=8)), min_size=1).map("".join)
stripped_texts = texts.map(str.strip).filter(bool)


@pytest.mark.parametrize("template", LAYOUTS, ids=lambda t: t.label)
@given(question=stripped_texts, answer=stripped_texts)
def test_every_joke_survives_the_round_trip(template: Template, question: str, answer: str) -> None:
    joke = Joke(question, answer)
    assert template.parse(render(template, joke)) == joke


@pytest.mark.parametrize("template", REVERSED, ids=lambda t: t.label)
@given(question=stripped_texts, answer=stripped_texts)
def test_a_joke_told_from_its_punchline_survives_the_round_trip(
    template: Template, question: str, answer: str
) -> None:
    told = (
        f"{template.answer_prefix.lstrip()}{template.escape(answer)}\n"
        f"{template.question_prefix}{template.escape(question)}"
    )
    assert template.parse(told) == Joke(question, answer)
    asked = (
        f"{template.question_prefix}{template.escape(question)}"
        f"{template.answer_prefix}{template.escape(answer)}"
    )
    assert template.parse(asked) == Joke(question, answer)
    assert replace(template, punchline_first=False).parse(told) is None


@given(text=texts)
def test_escape_leaves_no_marker_and_is_undone(text: str) -> None:
    for template in LAYOUTS:
        escaped = template.escape(text)
        assert not any(marker in escaped for marker in template.marker_texts)
        assert template.unescape(escaped) == text


@given(text=texts)
def test_parse_never_raises(text: str) -> None:
    for template in [*LAYOUTS, *REVERSED]:
        for prefix in (template.question_prefix, template.answer_prefix):
            template.parse(prefix + text)
            template.parse_partial(prefix + text)


def test_the_original_layout_is_the_originals_to_the_letter() -> None:
    assert render(TEMPLATES["original"], JOKE) == (
        "<|question|> Why did the bicycle lie down?\n<|answer|> It was two tired."
    )


def test_ordinary_text_is_left_as_it_is() -> None:
    assert TEMPLATES["words"].escape("The answer: 42\\n") == "The answer: 42\\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<|question|>",
        "<|question|> Why?",
        "<|question|> Why?\n<|answer|>",
        "<|question|> Why?\n<|answer|>  \n",
        "<|question|>\n<|answer|> Because.",
        "Why?\n<|answer|> Because.",
        "<|answer|> Because.",
        "<|question|> Why?\n<|answer|> Because.\n<|answer|> And so on.",
        "<|question|> Why?\n<|answer|> Because. <|question|> Who?",
        "<|question|> Why? <|question|> Who?\n<|answer|> Because.",
    ],
)
def test_half_finished_or_malformed_text_is_no_joke(text: str) -> None:
    assert TEMPLATES["original"].parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "<|answer|>",
        "<|answer|> Because.",
        "<|answer|> Because.\n<|question|>",
        "<|answer|>\n<|question|> Why?",
        "Because.\n<|question|> Why?",
        "<|answer|> Because. <|answer|> And so on.\n<|question|> Why?",
        "<|answer|> Because.\n<|question|> Why?\n<|answer|> And so on.",
        "<|answer|> Because.\n<|question|> Why? <|question|> Who?",
    ],
)
def test_half_a_joke_from_its_punchline_is_no_joke(text: str) -> None:
    assert replace(TEMPLATES["original"], punchline_first=True).parse(text) is None


def test_special_tokens_are_the_markers_only_where_asked() -> None:
    assert TEMPLATES["original"].special_tokens == ("<|question|>", "<|answer|>")
    assert TEMPLATES["original"].with_markers("plain").special_tokens == ()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.yaml", 'name: mine\nquestion_prefix: "[Q] "\nanswer_prefix: " [A] "\n'),
        ("mine.json", '{"name": "mine", "question_prefix": "[Q] ", "answer_prefix": " [A] "}'),
    ],
)
def test_a_layout_is_read_from_a_file(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    template = load_template(str(path))
    assert render(template, JOKE) == "[Q] Why did the bicycle lie down? [A] It was two tired."
    assert Template(**asdict(template)) == template


def test_a_layout_may_have_no_question_marker() -> None:
    template = Template("bare", "", "\nPunchline: ")
    assert template.parse(render(template, JOKE)) == JOKE


def test_a_layout_without_a_question_marker_cannot_begin_with_the_punchline() -> None:
    with pytest.raises(TemplateError, match="punchline_first needs a visible marker"):
        Template("bare", "", "\nPunchline: ", punchline_first=True)


@pytest.mark.parametrize("first", [True, False])
def test_the_order_is_kept_in_a_mapping(first: bool) -> None:
    template = replace(TEMPLATES["original"], punchline_first=first)
    fields = asdict(template)
    assert fields["punchline_first"] is first
    assert Template(**fields) == template
    del fields["punchline_first"]  # as in a folder from before there was a choice
    assert Template(**fields) == TEMPLATES["original"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": "x", "question_prefix": "Q:"}, "answer_prefix"),
        ({"name": "x", "question_prefix": "Q:", "answer_prefix": 3}, "answer_prefix"),
        ({"name": "x", "question_prefix": "Q:", "answer_prefix": "A:", "colour": "red"}, "colour"),
        ({"name": "x", "question_prefix": "Q:", "answer_prefix": "\n"}, "answer_prefix"),
        ({"name": "x y", "question_prefix": "Q:", "answer_prefix": "A:"}, "name"),
        ({"name": "x", "question_prefix": "Q:", "answer_prefix": "A:", "markers": "big"}, "big"),
        (
            {"name": "x", "question_prefix": "Q:", "answer_prefix": "A:", "punchline_first": "yes"},
            "'punchline_first' must be true or false",
        ),
        (
            {"name": "x", "question_prefix": " ", "answer_prefix": "A:", "punchline_first": True},
            "question_prefix",
        ),
        ({"name": "x", "question_prefix": "Ans", "answer_prefix": "Answer:"}, "Ans"),
        ({"name": "x", "question_prefix": "##Q##", "answer_prefix": "A:"}, "##Q##"),
        ({"name": "x", "question_prefix": "ab", "answer_prefix": "bc"}, "bc"),
        ({"name": "x", "question_prefix": "Q\\:", "answer_prefix": "A:"}, "backslash"),
    ],
)
def test_an_ambiguous_or_garbled_layout_is_refused_by_name(
    fields: object, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "template.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(TemplateError, match=named.replace("\\", r"\\")) as refused:
        load_template(str(path))
    assert str(refused.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("no.yaml", None, "no.yaml"),
        ("bad.yaml", b"name: [", "YAML"),
        ("bad.json", b"{", "JSON"),
        ("list.json", b'["a"]', "mapping"),
        ("binary.json", b"\xff\xfe\x00", "JSON"),
        ("template.txt", b"", "unknown template"),
    ],
)
def test_an_unreadable_file_is_one_sentence(
    tmp_path: Path, name: str, content: bytes | None, named: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=named):
        load_template(str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ("", "")),
        ("Quest", ("", "")),
        ("Question: Why do", ("Why do", "")),
        ("Question: Why?\nAns", ("Why?", "")),
        ("Question: Why?\nAnswer:", ("Why?", "")),
        ("Question: Why?\nAnswer: Because", ("Why?", "Because")),
        ("Question: An A", ("An", "")),
    ],
)
def test_an_unfinished_text_tells_what_is_certain(text: str, told: tuple[str, str]) -> None:
    assert TEMPLATES["words"].parse_partial(text) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Ans", ("", "")),
        ("Answer: Because", ("", "")),
        ("Answer: Because\nQuest", ("", "")),
        ("Answer: Because\nQuestion:", ("", "")),
        ("Answer: Because\nQuestion: Why do", ("Why do", "")),
        ("Answer: Because\nQuestion: Why do A", ("Why do", "")),
        ("Question: Why?\nAnswer: Because", ("Why?", "Because")),
    ],
)
def test_an_unfinished_text_from_the_punchline_tells_the_question_alone(
    text: str, told: tuple[str, str]
) -> None:
    assert replace(TEMPLATES["words"], punchline_first=True).parse_partial(text) == told
