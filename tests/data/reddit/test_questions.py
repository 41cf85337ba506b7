import pytest

from joker.data.reddit.questions import (
    asks,
    continued_question,
    end_question,
    find_pairs,
    quotes,
    requests,
    sets_up,
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
    assert asks(title)


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
    assert not asks(title)


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
    assert requests(title, body)


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
    assert not requests(title, body)


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
    assert sets_up(title, body)


@pytest.mark.parametrize(
    ("title", "body"),
    [
        ("Talking teapots", "A teapot told a cup to keep its handle on."),
        ("My dad's favourite joke", "A teapot told a cup to keep its handle on."),
        ("Owl pun", "Owl be back."),
    ],
)
def test_headlines_do_not_set_up(title: str, body: str) -> None:
    assert not sets_up(title, body)


def test_a_title_told_again_is_quoted() -> None:
    assert quotes('The owl asked, "Who is that?" and left.', "Who is that?")
    assert not quotes("A clock.", "Who is that?")


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
