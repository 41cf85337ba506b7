import pytest
from hypothesis import given
from hypothesis import strategies as st

from joker.data.reddit import boilerplate


@pytest.mark.parametrize("text", ["[deleted]", "[Removed]", "[removed by moderator]", "deleted."])
def test_what_reddit_leaves_of_a_post_is_deleted(text: str) -> None:
    assert boilerplate.is_deleted(text)


@pytest.mark.parametrize("text", ["The [deleted] was delicious!", "Removed hats", ""])
def test_other_text_is_not_deleted(text: str) -> None:
    assert not boilerplate.is_deleted(text)


@pytest.mark.parametrize(("text", "says"), [("...", False), ("🦉", True), ("≠", True), ("Я", True)])
def test_letters_digits_and_symbols_say_something(text: str, says: bool) -> None:
    assert boilerplate.says_something(text) is says


@pytest.mark.parametrize(
    "title",
    [
        "[NSFW] Why do owls hum?",
        "Why do owls hum? (NSFW)",
        "NSFW: Why do owls hum?",
        "Why do owls hum? - NSFW",
        "Why do owls hum? [x-post from /r/owls]",
        "[OC] (possibly offensive) Why do owls hum?",
    ],
)
def test_tags_are_taken_off(title: str) -> None:
    assert boilerplate.strip_tags(title) == "Why do owls hum?"


def test_other_brackets_stay() -> None:
    assert (
        boilerplate.strip_tags("Why do owls (the grey ones) hum?")
        == "Why do owls (the grey ones) hum?"
    )


@pytest.mark.parametrize("label", ["Q: ", "q. ", "Question: ", "Q) ", "(Q)..... ", "- "])
def test_question_labels_are_taken_off(label: str) -> None:
    assert boilerplate.strip_question_label(f"{label}Why do owls hum?") == "Why do owls hum?"


@pytest.mark.parametrize("label", ["A: ", "A. ", "Answer: ", "ans: ", "(A)..... ", "A) "])
def test_answer_labels_are_taken_off(label: str) -> None:
    assert boilerplate.strip_answer_label(f"{label}They lost the words.") == "They lost the words."


@pytest.mark.parametrize(
    "body", ["a) An owl\nb) A clock", "A-flat minor", "A teapot.", "Ants: many"]
)
def test_what_only_looks_like_an_answer_label_stays(body: str) -> None:
    assert boilerplate.strip_answer_label(body) == body


@pytest.mark.parametrize(
    ("title", "question"),
    [
        ("A joke my son told me: Why do owls hum?", "Why do owls hum?"),
        ("My niece made up this joke. Why do owls hum?", "Why do owls hum?"),
        ("My son asked: Why do owls hum?", "My son asked: Why do owls hum?"),
    ],
)
def test_an_introduction_is_taken_off(title: str, question: str) -> None:
    assert boilerplate.strip_introduction(title) == question


@pytest.mark.parametrize(
    ("body", "rest"),
    [
        ("Why do owls hum?\n\nThey lost the words.", "They lost the words."),
        ("why do owls HUM... They lost the words.", "They lost the words."),
        ('Why do owls hum:\n"No words."', '"No words."'),
        ("Why do owls hum", ""),
        ("Why do owls hum so low? They are shy.", "Why do owls hum so low? They are shy."),
        ("They lost the words.", "They lost the words."),
    ],
)
def test_a_repeated_title_is_taken_off(body: str, rest: str) -> None:
    assert boilerplate.strip_repeat("Why do owls hum?", body) == rest


@pytest.mark.parametrize(
    "aside",
    [
        "\n\nI'll see myself out.",
        "\n(sorry if repost)",
        "\n\nCredit: my sister",
        " *ba dum tss*",
        " I'll show myself out...",
        " (heard this from a friend)",
        "\n\n- Olive Owlson",
        "\n\nsorry\n\n/u/somebody",
    ],
)
def test_asides_are_taken_off(aside: str) -> None:
    assert boilerplate.strip_asides(f"They lost the words.{aside}") == "They lost the words."


@pytest.mark.parametrize(
    "body",
    ["Sorry about that, said the owl.", "One said:\nWho?", "She went via the roof.", "(sorry)"],
)
def test_punchlines_are_no_asides(body: str) -> None:
    assert boilerplate.strip_asides(body) == body


@pytest.mark.parametrize(
    ("body", "rest"), [("...because", "because"), ("- Who?", "Who?"), ("-1", "-1")]
)
def test_dots_before_an_answer_are_taken_off(body: str, rest: str) -> None:
    assert boilerplate.strip_leading_dots(body) == rest


@given(st.text(), st.text())
def test_no_text_makes_a_rule_fail(title: str, body: str) -> None:
    boilerplate.strip_tags(title)
    boilerplate.strip_introduction(title)
    boilerplate.strip_question_label(title)
    boilerplate.strip_repeat(title, body)
    boilerplate.strip_answer_label(body)
    boilerplate.strip_asides(body)
