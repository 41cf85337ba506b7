import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joker.core.joke import Joke
from joker.data.parsing import MAX_RAW_LENGTH, Parsed, parse_pair, parse_post

STORY = "An owl sat in a tree and told the other birds of its long day at the library. " * 6


@pytest.mark.parametrize(
    ("title", "body", "question", "answer"),
    [
        ("Why do owls hum?", "They lost the words.", "Why do owls hum?", "They lost the words."),
        ("[NSFW] Q: Why do owls hum", "A: No words.", "Why do owls hum?", "No words."),
        ("Why do owls hum?", "Why do owls hum?\n\nNo\nwords.", "Why do owls hum?", "No words."),
        ("My owl left me...", "it gave no hoot.", "My owl left me...", "it gave no hoot."),
        (
            "An owl walks into a library...",
            '"Whoo!"\n\n"Quiet, please."\n\n"Who?"\n\n"You, sir."',
            "An owl walks into a library...",
            '"Whoo!" "Quiet, please." "Who?" "You, sir."',
        ),
        (
            "Why do owls hum?",
            "I\n\nlost\n\nall\n\nthe words.",
            "Why do owls hum?",
            "I lost all the words.",
        ),
        ("Owl humour", "Why do owls hum?\n\nNo words.", "Why do owls hum?", "No words."),
        (
            "What's your best owl joke?",
            "Why do owls hum?\nNo words.",
            "Why do owls hum?",
            "No words.",
        ),
        (
            "What do you call...",
            "...a shy owl?\nA whisper.",
            "What do you call a shy owl?",
            "A whisper.",
        ),
        ("Why do owls hum?", "...no words\n\nEDIT: typo", "Why do owls hum?", "no words"),
    ],
)
def test_posts_that_ask_or_set_up_become_jokes(
    title: str, body: str, question: str, answer: str
) -> None:
    parsed = parse_post(title, body)
    assert (parsed.outcome, parsed.question, parsed.answer) == ("joke", question, answer)


@pytest.mark.parametrize(
    ("title", "body", "reason"),
    [
        ("An owl's day", STORY, "story"),
        ("Why do owls hum?", STORY, "story"),
        ("An owl walks into a library...", "It\n\nsat\n\ndown\n\nand\n\nread.", "story"),
        ("An owl walks into a library...", f"It said: {STORY[:140]}", "story"),
        (
            "Who is that?",
            'An owl heard a knock and asked, "Who is that?" A clock, it was.',
            "headline",
        ),
        ("Talking teapots", "A teapot told a cup to keep its handle on.", "headline"),
        ("Owl jokes", "Q: Why?\nA: Because.\n\nQ: Who?\nA: An owl.", "several jokes"),
    ],
)
def test_other_jokes_stay_plain(title: str, body: str, reason: str) -> None:
    parsed = parse_post(title, body)
    assert (parsed.outcome, parsed.reason) == ("plain", reason)
    assert parsed.question
    assert parsed.answer


@pytest.mark.parametrize(
    ("title", "body", "reason"),
    [
        ("Why do owls hum?", "[removed]", "deleted"),
        ("Why do owls hum?", " \n ", "empty"),
        ("Why do owls hum?", "Why do owls hum?", "empty"),
        ("Why do owls hum?", "https://example.org/owl.gif", "empty"),
        ("Why do owls hum?", "...", "no words"),
        ("Got any owl jokes?", "Post yours here, I want to read them all tonight.", "request"),
        ("An owl's day", STORY * 40, "too long"),
        ("An owl's day", "x" * (MAX_RAW_LENGTH + 1), "too long"),
    ],
)
def test_posts_with_nothing_to_tell_are_dropped(title: str, body: str, reason: str) -> None:
    parsed = parse_post(title, body)
    assert (parsed.outcome, parsed.reason) == ("dropped", reason)


def test_named_questions_and_answers_are_kept_whatever_their_form() -> None:
    parsed = parse_pair("Talking teapots", f"  A: {STORY}")
    assert (parsed.outcome, parsed.question) == ("joke", "Talking teapots")
    assert parsed.answer == STORY.strip()
    assert {"labels", "white space"} <= parsed.changes


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("", "x", "empty"),
        ("x", "[deleted]", "deleted"),
        ("Who?", "y" * 1001, "too long"),
        ("?", "x", "no words"),
    ],
)
def test_named_pairs_with_nothing_to_tell_are_dropped(
    question: str, answer: str, reason: str
) -> None:
    assert parse_pair(question, answer)[:2] == ("dropped", reason)


def test_an_untouched_row_names_no_changes() -> None:
    assert not parse_post("Why do owls hum?", "They lost the words.").changes


@pytest.mark.parametrize("parse", [parse_pair, parse_post])
@settings(deadline=None)
@given(question=st.text(), answer=st.text())
def test_every_text_has_a_fate_and_every_joke_is_one(
    parse: object, question: str, answer: str
) -> None:
    parsed = parse(question, answer)  # type: ignore[operator]
    assert isinstance(parsed, Parsed)
    if parsed.outcome == "joke":
        joke = Joke(parsed.question, parsed.answer)
        assert "\n" not in joke.question + joke.answer
    else:
        assert parsed.reason
