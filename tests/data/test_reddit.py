import pytest
from hypothesis import given
from hypothesis import strategies as st

from joker.data.reddit import (
    continued_question,
    end_question,
    find_pairs,
    has_content,
    is_deleted,
    is_question,
    is_request,
    is_setup,
    repeats_title,
    strip_answer_label,
    strip_asides,
    strip_introduction,
    strip_leading_dots,
    strip_question_label,
    strip_repeat,
    strip_tags,
    tidy_question,
)


@pytest.mark.parametrize(
    "title",
    [
        "Why do owls whisper?",
        '"Where do owls live?"',
        "What do you call a bossy teapot",
        "what's the difference between an owl and a clock...",
        "How many owls does it take to wind a clock.",
        "Did you hear about the shy volcano",
    ],
)
def test_questions_ask(title: str) -> None:
    assert is_question(title)


@pytest.mark.parametrize(
    "title",
    [
        "An owl walks into a library...",
        "What a lovely teapot",
        "When I was young, owls sang.",
        "Why me. Why now",
    ],
)
def test_other_titles_do_not_ask(title: str) -> None:
    assert not is_question(title)


@pytest.mark.parametrize(
    ("question", "ended"),
    [
        ("What do you call a bossy teapot...", "What do you call a bossy teapot?"),
        ("Why do owls whisper ?", "Why do owls whisper?"),
        ("Why do owls whisper?...", "Why do owls whisper?"),
        ("Why do owls whisper??", "Why do owls whisper??"),
    ],
)
def test_a_question_ends_with_its_mark(question: str, ended: str) -> None:
    assert end_question(question) == ended
    assert tidy_question(ended) == ended


@pytest.mark.parametrize(
    ("title", "body"),
    [
        ("What's your best joke about owls?", "I need some for a party, so please share."),
        ("Anyone know any good puns?", "Mine is about owls, and it is long enough to tell here."),
        ("[Request] Owls", "Do you have any?"),
        ("Give me your funniest riddles!", "Go."),
    ],
)
def test_titles_that_want_jokes_request(title: str, body: str) -> None:
    assert is_request(title, body)


@pytest.mark.parametrize(
    ("title", "body"),
    [
        ("I'd tell you a joke about owls...", "but you wouldn't give a hoot."),
        ("Do I know any jokes about sodium?", "Na."),
        ("Did you hear the joke about the roof?", "It's over your head."),
        ("Why do owls request silence?", "They are reading."),
    ],
)
def test_titles_that_tell_jokes_do_not_request(title: str, body: str) -> None:
    assert not is_request(title, body)


@pytest.mark.parametrize(
    ("title", "body"),
    [
        ("My umbrella left me...", "It said I never open up."),
        ("I used to date a lighthouse.", "She was too flashy."),
        ("Owls in a choir", "and not one could hold a note"),
        ("A teapot walks into a bar", "The bartender asks for tea."),
    ],
)
def test_sentences_and_their_beginnings_set_up(title: str, body: str) -> None:
    assert is_setup(title, body)


@pytest.mark.parametrize(
    ("title", "body"),
    [
        ("Talking teapots", "A teapot told a cup to keep its handle on."),
        ("My dad's favorite joke", "A teapot told a cup to keep its handle on."),
        ("Owl pun", "Owl be back."),
    ],
)
def test_headlines_do_not_set_up(title: str, body: str) -> None:
    assert not is_setup(title, body)


def test_a_title_told_again_is_quoted() -> None:
    assert repeats_title('The owl asked, "Who is that?" and left.', "Who is that?")
    assert not repeats_title("A clock.", "Who is that?")


@pytest.mark.parametrize(
    ("body", "pairs"),
    [
        (
            "Q: Why do owls hum?\nA: They lost the words.",
            [("Why do owls hum?", "They lost the words.")],
        ),
        (
            "Why do owls hum?\n\nThey lost the words.",
            [("Why do owls hum?", "They lost the words.")],
        ),
        ("They lost the words.", []),
        ("An owl.\nWhy do owls hum?\nThey lost the words.", []),
    ],
)
def test_a_pair_in_a_body_is_found(body: str, pairs: list[tuple[str, str]]) -> None:
    assert find_pairs(body) == pairs


def test_several_questions_in_a_body_are_found() -> None:
    body = "Why do owls hum?\nNo words.\n\nWhat is a clock's wish?\nMore time."
    assert len(find_pairs(body)) == 2


@pytest.mark.parametrize(
    ("title", "body"),
    [
        ("What do you call...", "...an owl with a hat?\nSir."),
        ("What do you call an owl...", "What do you call an owl with a hat?\nSir."),
    ],
)
def test_a_question_broken_off_goes_on_in_the_body(title: str, body: str) -> None:
    assert continued_question(title, body) == ("What do you call an owl with a hat?", "Sir.")


def test_a_whole_question_does_not_go_on() -> None:
    assert continued_question("What do you call an owl?", "A bird?\nNo.") is None


@pytest.mark.parametrize("text", ["[deleted]", "[Removed]", "[removed by moderator]", "deleted."])
def test_what_reddit_leaves_of_a_post_is_deleted(text: str) -> None:
    assert is_deleted(text)


@pytest.mark.parametrize("text", ["The [deleted] was delicious!", "Removed hats", ""])
def test_other_text_is_not_deleted(text: str) -> None:
    assert not is_deleted(text)


@pytest.mark.parametrize(("text", "says"), [("...", False), ("🦉", True), ("≠", True), ("Я", True)])
def test_letters_digits_and_symbols_say_something(text: str, says: bool) -> None:
    assert has_content(text) is says


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
    assert strip_tags(title) == "Why do owls hum?"


def test_other_brackets_stay() -> None:
    assert strip_tags("Why do owls (the grey ones) hum?") == "Why do owls (the grey ones) hum?"


@pytest.mark.parametrize("label", ["Q: ", "q. ", "Question: ", "Q) ", "(Q)..... ", "- "])
def test_question_labels_are_taken_off(label: str) -> None:
    assert strip_question_label(f"{label}Why do owls hum?") == "Why do owls hum?"


@pytest.mark.parametrize("label", ["A: ", "A. ", "Answer: ", "ans: ", "(A)..... ", "A) "])
def test_answer_labels_are_taken_off(label: str) -> None:
    assert strip_answer_label(f"{label}They lost the words.") == "They lost the words."


@pytest.mark.parametrize(
    "body", ["a) An owl\nb) A clock", "A-flat minor", "A teapot.", "Ants: many"]
)
def test_what_only_looks_like_an_answer_label_stays(body: str) -> None:
    assert strip_answer_label(body) == body


@pytest.mark.parametrize(
    ("title", "question"),
    [
        ("A joke my son told me: Why do owls hum?", "Why do owls hum?"),
        ("My niece made up this joke. Why do owls hum?", "Why do owls hum?"),
        ("My son asked: Why do owls hum?", "My son asked: Why do owls hum?"),
    ],
)
def test_an_introduction_is_taken_off(title: str, question: str) -> None:
    assert strip_introduction(title) == question


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
    assert strip_repeat("Why do owls hum?", body) == rest


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
    assert strip_asides(f"They lost the words.{aside}") == "They lost the words."


@pytest.mark.parametrize(
    "body",
    ["Sorry about that, said the owl.", "One said:\nWho?", "She went via the roof.", "(sorry)"],
)
def test_punchlines_are_no_asides(body: str) -> None:
    assert strip_asides(body) == body


@pytest.mark.parametrize(
    ("body", "rest"), [("...because", "because"), ("- Who?", "Who?"), ("-1", "-1")]
)
def test_dots_before_an_answer_are_taken_off(body: str, rest: str) -> None:
    assert strip_leading_dots(body) == rest


@given(st.text(), st.text())
def test_no_text_makes_a_rule_fail(title: str, body: str) -> None:
    strip_tags(title)
    strip_introduction(title)
    strip_question_label(title)
    strip_repeat(title, body)
    strip_answer_label(body)
    strip_asides(body)
