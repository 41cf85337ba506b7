import importlib
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joker.core.errors import MissingDependencyError
from joker.data.cleaning import RULES, clean, flatten

PIECES = [
    *"*_~^#>[]()!&;-=.\\`\"' \n\r\t\x00\x85\x92\u200b\u200d\u2028\ufeff\ud800\ue412’“…é",
    "&amp;", "&#8217;", "&lt;", "&am", "p;", "EDIT:", "edit", "ninja edit -", "update;", "eta:",
    "[a](b)", ">!", "!<", "https://a.b/c", "www.", "**", "##", "---", "â€™", "Ã©", "Â", "\u0301",
    "owl", "Why", "\U0001d400", "ｆ", "👩", "^^so",
]  # fmt: skip
NASTY = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@pytest.mark.parametrize(
    ("raw", "cleaned", "rule"),
    [
        ("salt &amp;amp; pepper", "salt & pepper", "HTML entities"),
        ("it’s “fine”…", 'it\'s "fine"...', "unusual Unicode"),
        ("zero\u200bwidth\ufeff", "zerowidth", "unusual Unicode"),
        ("ｗｉｄｅ and 𝐛𝐨𝐥𝐝", "wide and bold", "unusual Unicode"),
        ("z\u0300\u0301\u0302\u0303algo", "z\u0300\u0301algo", "unusual Unicode"),
        ("it\x92s a cafÃ©", "it's a café", "encoding"),
        ("donâ€™t", "don't", "encoding"),
        ("â€œowlâ€\x9d", '"owl"', "encoding"),
        ("cafÃƒÂ©", "café", "encoding"),
        ("a\x81b", "ab", "encoding"),
        ("bell\x07 and half\ud800", "bell and half", "encoding"),
        ("a **bold** and *slanted* __word__", "a bold and slanted word", "Markdown"),
        ("~~no~~ yes", "no yes", "Markdown"),
        ("# Title\n> quoted\n\n---\n\nend", "Title\nquoted\n\nend", "Markdown"),
        (">!behind a curtain!<", "behind a curtain", "Markdown"),
        ("[the owl](http://example.org/a_(b)) sang", "the owl sang", "Markdown"),
        ("1\\. One \\- owl", "1. One - owl", "Markdown"),
        ("Boo ^^^not ^really", "Boo not really", "Markdown"),
        ("Wait\n.\n.\nfor it", "Wait\n\nfor it", "Markdown"),
        ("An owl https://example.org/owl?x=1", "An owl", "links"),
        ("An owl.\n\nEDIT: a word", "An owl.", "edit notes"),
        ("An owl... edit 2: thanks for the gold!", "An owl...", "edit notes"),
        ("An owl!\n(Edit) sorry", "An owl!", "edit notes"),
        ("Edit: a word\nAn owl.", "An owl.", "edit notes"),
        ("  many \t blanks \r\n\r\n\r\n\r\nhere ", "many blanks\n\nhere", "white space"),
    ],
)
def test_text_is_cleaned_and_the_rule_named(raw: str, cleaned: str, rule: str) -> None:
    text, changes = clean(raw)
    assert text == cleaned
    assert rule in changes


@pytest.mark.parametrize(
    "text",
    [
        "Why did the f**k-censored s**t parrot leave?",
        "(•_•) ( •_•)>⌐■-■ (⌐■_■)",
        "¯_(ツ)_/¯",
        "I like my coffee like my _____.",
        "2*3*4 is 24 and snake_case_names stay",
        "#1 reason, #hashtag",
        "They credited the reddit editor: him",
        "C# > C",
        "\U0001f469\u200d\U0001f373 cooks",
        "SÃO PAULO, naïve, 10 °C, £5",
        "1 - 2 = -1",
    ],
)
def test_text_that_only_looks_like_markup_stays(text: str) -> None:
    assert clean(text).text == text


@given(st.text() | NASTY)
@settings(max_examples=400)
def test_cleaning_clean_text_changes_nothing(raw: str) -> None:
    text = clean(raw).text
    assert clean(text) == (text, frozenset())


@given(st.text() | NASTY)
def test_what_is_left_can_be_stored(raw: str) -> None:
    text = clean(raw).text
    assert "\0" not in text
    assert text == text.strip()
    assert text.encode("utf-8").decode("utf-8") == text


@given(st.from_regex(r"[a-zA-Z0-9!\"$%',.?@ -]*", fullmatch=True) | NASTY)
def test_text_called_unchanged_is_unchanged_by_every_rule(raw: str) -> None:
    text, changes = clean(raw)
    if not changes:
        assert text == raw
        assert all(rule(raw) == raw for rule in RULES.values())


@pytest.mark.parametrize("piece", ["*a ", "_a ", "# ", ">!", "[a](", "\u200d", "&amp;", "edit: "])
def test_long_adversarial_text_is_cleaned_too(piece: str) -> None:
    assert len(clean(piece * 10_000).text) <= len(piece) * 10_000


def test_flatten_makes_one_line() -> None:
    assert flatten("one\n\n two ") == "one two"


def test_without_ftfy_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    monkeypatch.delitem(sys.modules, "joker.data.cleaning")
    with pytest.raises(MissingDependencyError, match=r"ftfy .*gpt2-the-joker\[train\]"):
        importlib.import_module("joker.data.cleaning")
