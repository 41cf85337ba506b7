import pytest

from joker.core.joke import Joke
from joker.data.decontamination import HeldOutJokes

HELD_OUT = [
    Joke("Why did the kettle quit the choir?", "It could only hold one note and then clicked off."),
    Joke("What do you call a sleepy lighthouse?", "A nap with a view."),
    Joke("Why?", "Because."),
]
FILLER = "The harbour was quiet that morning and nobody thought of singing. " * 30


@pytest.fixture(scope="module")
def held_out() -> HeldOutJokes:
    return HeldOutJokes(HELD_OUT)


@pytest.mark.parametrize("joke", HELD_OUT)
def test_joke_itself_is_found(held_out: HeldOutJokes, joke: Joke) -> None:
    assert held_out.in_text(f"{joke.question}\n{joke.answer}")


def test_joke_inside_a_long_text_is_found(held_out: HeldOutJokes) -> None:
    told = "why did that kettle quit its choir? could only hold one note, then it clicked off"
    for before in (0, 430, 490, 777):
        assert held_out.in_text(FILLER[:before] + told + FILLER)


def test_reworded_question_with_the_same_long_answer_is_found(held_out: HeldOutJokes) -> None:
    assert held_out.in_text("My uncle built a tower to doze in. I call it: a nap, with a VIEW!")


def test_answer_inside_other_words_is_not_found(held_out: HeldOutJokes) -> None:
    assert not held_out.in_text("They sell a nap with a viewfinder, of all things.")


@pytest.mark.parametrize(
    "text", ["", "?!", FILLER, "Why did the ladder leave the choir? It had reached its peak."]
)
def test_other_texts_pass(held_out: HeldOutJokes, text: str) -> None:
    assert not held_out.in_text(text)


def test_short_joke_does_not_stand_in_every_text(held_out: HeldOutJokes) -> None:
    assert not held_out.in_text("Nobody knows why it rains, perhaps because the sea is full.")


def test_no_held_out_jokes_find_nothing() -> None:
    assert not HeldOutJokes([]).in_text(FILLER)
