from __future__ import annotations

from dataclasses import replace

import pytest

from joker.core.joke import Joke
from joker.core.template import TEMPLATES
from joker.engines import GenerationTask
from joker.generation.prompt import Prompt, asks_for_any_joke, topic_of
from joker.generation.request import GenerationRequest
from joker.generation.teller import MissingJokesError, Teller
from tests.generation.stub import END, StubEngine, ask
from tests.generation.test_listener import Audience

QUESTION_FIRST = TEMPLATES["original"]
PUNCHLINE_FIRST = replace(QUESTION_FIRST, punchline_first=True)
JOKE = Joke("Why do two  foxes share a box?", "They had a ferry to catch.")


@pytest.mark.parametrize(
    ("written", "topic"),
    [
        ("tell me a joke about cats", "cats"),
        ("Tell me a joke about black cats.", "black cats"),
        ("a joke about cats please", "cats"),
        ("joke about cats", "cats"),
        ("me a joke about cats", "cats"),
        ("Can you tell me a good joke about the moon, please?", "the moon"),
        ("tell me a joke about jokes", "jokes"),
        ("more jokes about cats", "cats"),
        ("New York jokes", "New York"),
        ("new year jokes", "new year"),
        ("new cat jokes", "cat"),
        ("I want a joke about dogs", "dogs"),
        ("I'd like a joke on school!", "school"),
        ("I’d love to hear a joke about Ada Lovelace", "Ada Lovelace"),
        ("do you know a joke about cows?", "cows"),
        ("got any jokes about cats", "cats"),
        ("Have you got one about cats?", "cats"),
        ("one about cats", "cats"),
        ("a pun about bread", "bread"),
        ("a riddle about the moon", "the moon"),
        ("something about my cat", "my cat"),
        ("Say something funny about cats, please.", "cats"),
        ("tell me about cats", "cats"),
        ("jokes for kids about bees", "bees"),
        ("a joke about bees for my little kids", "bees"),
        ("a joke for a birthday", "a birthday"),
        ("Hello! Tell me a joke about cats", "cats"),
        ("hey tell me a joke about cats", "cats"),
        ("Tell me a cat joke", "cat"),
        ("Tell me a programming joke", "programming"),
        ("a really bad cat joke, please", "cat"),
        ("cat jokes", "cat"),
        ("cats and dogs jokes", "cats and dogs"),
        ("dad jokes about cars", "cars"),
        ("Do you know any math jokes?", "math"),
    ],
)
def test_a_wish_for_a_topic_is_reduced_to_it(written: str, topic: str) -> None:
    assert Prompt.parse(written, PUNCHLINE_FIRST).text == topic


@pytest.mark.parametrize(
    "written",
    [
        "cats",
        "black cats",
        "hello kitty",
        "Another planet",
        "one",
        "more",
        "Why do cats",
        "Why did the dog",
        "Why joke about cats",
        "Why tell a joke",
        "Why are cat jokes",
        "What do you call a cat?",
        "What do you call a joke about cats?",
        "Do you know why cats purr?",
        "Do you like cat jokes?",
        "Did you hear the joke about the roof",
        "Have you heard the one about the cat",
        "How many programmers does it take",
        "My wife is a joke",
    ],
)
def test_what_is_no_wish_stays_as_it_is(written: str) -> None:
    assert Prompt.parse(written, PUNCHLINE_FIRST).text == written
    assert GenerationRequest(prompt=written).prompt == written


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "...",
        "hello",
        "Hi!",
        "Good morning!",
        "Tell me  a joke",
        "can you tell me another funny joke, please?",
        "Hey, can you tell me a joke?",
        "me a joke",
        "one more",
        "more jokes!",
        "tell\x00me a\x1bjoke",
        "a dad joke",
        "Tell me some really good clean jokes",
        "tell me 3 short jokes",
        "knock knock",
        "a knock-knock joke",
        "make me laugh",
        "Can you make me laugh?",
        "I'm bored, tell me something funny",
        "say something funny",
        "jokes for kids",
        "do you know any jokes?",
        "got any good puns",
        "joke of the day",
        "your best joke",
    ],
)
def test_a_wish_for_any_joke_is_no_prompt(written: str) -> None:
    assert GenerationRequest(prompt=written).prompt == ""


@pytest.mark.parametrize(
    ("written", "asked"),
    [("Hello there! Why do cats", "Why do cats"), ("Hi, what is a cat?", "what is a cat?")],
)
def test_a_greeting_before_a_prompt_does_not_count(written: str, asked: str) -> None:
    assert GenerationRequest(prompt=written).prompt == asked


@pytest.mark.parametrize(
    "piece", ["a ", "! ", ", ", "have you got ", "joke about ", "for me ", "so"]
)
def test_a_long_prompt_is_read_at_once(piece: str) -> None:
    # A regular expression that backtracks without end would never get here.
    assert not asks_for_any_joke(f"tell me {piece * 20_000}x")


def test_a_text_too_long_for_a_wish_is_none() -> None:
    assert topic_of(f"a joke about {'very ' * 10}old cats") is not None
    assert topic_of(f"a joke about {'very ' * 1000}old cats") is None


@pytest.mark.parametrize("written", ["tell me a joke about cats", "cats", "Why do cats..."])
def test_where_the_question_comes_first_a_prompt_is_its_start(written: str) -> None:
    prompt = Prompt.parse(written, QUESTION_FIRST)
    assert (prompt.text, prompt.is_hint) == (written, False)
    assert prompt.accept(JOKE) == JOKE


@pytest.mark.parametrize(
    ("written", "taken_up"),
    [
        ("", True),
        ("...", True),
        ("Why do two", True),
        ("why DO two foxes", True),
        ("Why do cats", False),
        ("don't they", False),
        ("What", False),
        ("fox", True),
        ("foxes", True),
        ("boxes and foxes", True),
        ("ferries", True),
        ("the Fox's ferry", True),
        ("cat", False),
        ("fox ox", False),
    ],
)
def test_a_hint_is_taken_up_or_not(written: str, taken_up: bool) -> None:
    assert (Prompt.parse(written, PUNCHLINE_FIRST).accept(JOKE) is not None) is taken_up


@pytest.mark.parametrize(
    ("singular", "plural"), [("wolf", "wolves"), ("wife", "wives"), ("snowman", "snowmen")]
)
def test_a_topic_fits_jokes_on_its_irregular_plural_too(singular: str, plural: str) -> None:
    one, many = (Joke(f"Why do they like {noun}?", "They melt.") for noun in (singular, plural))
    for topic in (singular, plural):
        assert Prompt.parse(topic).fits(one)
        assert Prompt.parse(topic).fits(many)


def test_no_joke_that_is_there_fits_a_whole_question_or_no_prompt() -> None:
    for written in ("Why do two foxes share a box?", "", "..."):
        assert not Prompt.parse(written).fits(JOKE)
    assert Prompt.parse("Why do two foxes").fits(JOKE)


@pytest.mark.parametrize(
    ("topic", "start"),
    [
        ("cats", "Why did the cat"),
        ("Cats", "Why did the cat"),
        ("Santa", "Why did Santa"),
        ("the Moon", "Why did the Moon"),
        ("the moon", "Why did the moon"),
        ("black foxes", "Why did the black fox"),
        ("my boss", "Why did the boss"),
        ("wolves", "Why did the wolves"),
        ("physics", "Why did the physics"),
        ("shoes", "Why did the shoe"),
        ("potatoes", "Why did the potato"),
        ("a", "Why did the a"),
        ("Ada Lovelace", "Why did Ada Lovelace"),
    ],
)
def test_a_topic_becomes_the_start_of_a_question_in_every_other_attempt(
    topic: str, start: str
) -> None:
    prompt = Prompt.parse(topic, PUNCHLINE_FIRST)
    assert [prompt.for_attempt(attempt) for attempt in range(3)] == [start, topic, start]


@pytest.mark.parametrize("written", ["", "Why do cats", "What do you call a cat?"])
def test_a_start_is_given_to_the_model_as_it_is(written: str) -> None:
    assert Prompt.parse(written, PUNCHLINE_FIRST).for_attempt(0) == written
    assert Prompt.parse("cats", QUESTION_FIRST).for_attempt(0) == "cats"


def test_the_prompts_own_spelling_is_shown() -> None:
    joke = Prompt.parse("why DO two foxes", PUNCHLINE_FIRST).accept(JOKE)
    assert joke
    assert joke.question == "why DO two foxes share a box?"
    named = Joke("Why did ada lovelace laugh?", "It was Babbage.")
    taken_up = Prompt.parse("a joke about Ada Lovelace", PUNCHLINE_FIRST).accept(named)
    assert taken_up == Joke("Why did Ada Lovelace laugh?", "It was Babbage.")


def engine_telling(*jokes: Joke) -> StubEngine:
    """Return a punchline-first engine that tells one joke after the other."""
    texts = iter(jokes)

    def script(_: GenerationTask) -> str:
        joke = next(texts)
        return f" {joke.answer}<|question|> {joke.question}{END}"

    return StubEngine(script, PUNCHLINE_FIRST)


def test_a_joke_beside_the_prompt_is_drawn_anew() -> None:
    engine = engine_telling(Joke("What is a dog?", "Man's best fiend."), JOKE)
    (told,) = Teller(engine).tell(ask("Tell me a joke about a fox"))
    assert (told.pair, told.attempts) == (JOKE, 2)
    given = [batch[0].prompt_ids for batch in engine.batches]
    assert given == [*map(engine.tokenizer.encode_prompt, ("Why did the fox", "a fox"))]


def test_a_prompt_that_no_joke_takes_up_is_said_to_be_so() -> None:
    with pytest.raises(MissingJokesError, match="2 that ignored the prompt"):
        Teller(engine_telling(JOKE, JOKE)).tell(ask("why do cats", max_attempts=2))


def test_drafts_beside_the_prompt_are_not_shown() -> None:
    audience = Audience()
    engine = engine_telling(Joke("What is a dog?", "Man's best fiend."), JOKE)
    Teller(engine).tell(ask("why do two foxes"), audience)
    assert {question for _, question, _ in audience.drafts} == {
        *("Why", "Why do", "Why do two", "why do two foxes", "why do two foxes share"),
        "why do two foxes share a",
    }


def test_a_hint_without_a_question_behind_the_answer_is_no_joke() -> None:
    engine = StubEngine(lambda _: f" They are cats.{END}", PUNCHLINE_FIRST)
    with pytest.raises(MissingJokesError, match="1 malformed"):
        Teller(engine).tell(ask("cats", max_attempts=1))
