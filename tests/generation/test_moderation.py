from __future__ import annotations

import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joker.core.errors import InputError
from joker.core.joke import Joke
from joker.generation.moderation import CATEGORIES, SEVERITIES, Category, Flag, Moderator

SHIPPED = resources.files("joker.generation").joinpath("moderation.txt").read_text(encoding="utf-8")

# A list that shows each way of writing a term, with words that hurt nobody.
OWN = Moderator(
    """
    [@animal]
    badger
    pony

    [explicit topic]        # a comment
    blast
    botherat*
    *confound*
    what's up
    silly old moose

    [dark offensive]
    @animal + cliff | ravine

    [dark topic]
    thunder + lightning

    [allowed]
    blast furnace
    pony tail
    """
)


def terms(text: str, moderator: Moderator = OWN) -> list[str]:
    return [flag.term for flag in moderator.check(text)]


def test_check_names_category_severity_and_line_of_every_flag() -> None:
    assert OWN.check("Thunder! Then lightning. Oh blast, a badger in a ravine.") == (
        Flag("explicit", "topic", "blast"),
        Flag("dark", "offensive", "@animal + cliff | ravine"),
        Flag("dark", "topic", "thunder + lightning"),
    )


def test_safe_mode_withholds_offense_and_lets_topics_pass() -> None:
    assert OWN.withholds("The badger fell off a cliff.")
    assert not OWN.withholds("Oh blast, thunder and lightning!")
    assert not OWN.withholds("Why did the kettle sing?")


def test_an_excluded_category_withholds_its_topics_too() -> None:
    assert OWN.withholds("Thunder and lightning!", exclude_categories=["dark"])
    assert not OWN.withholds("Thunder and lightning!", exclude_categories=["explicit"])
    assert OWN.withholds("The badger fell off a cliff.", exclude_categories=["explicit"])


def test_unsafe_withholds_excluded_categories_alone() -> None:
    assert not OWN.withholds("The badger fell off a cliff.", safe=False)
    assert not OWN.withholds("A badger, a cliff", safe=False, exclude_categories=["explicit"])
    assert OWN.withholds("Oh blast", safe=False, exclude_categories=["explicit"])


def test_check_of_harmless_or_empty_text_finds_nothing() -> None:
    assert OWN.check("Why did the kettle sing? It was in a good mood.") == ()
    assert OWN.check("") == ()


@pytest.mark.parametrize("text", ["blast", "Blasts!", "(BLAST)", "a blast's echo"])
def test_word_matches_whole_words_and_plurals(text: str) -> None:
    assert terms(text) == ["blast"]


@pytest.mark.parametrize("text", ["blaster", "sandblast", "botherless", "silly moose", "old moose"])
def test_word_does_not_match_inside_other_words(text: str) -> None:
    assert terms(text) == []


def test_stem_fragment_and_phrase_match_as_written() -> None:
    assert terms("botheration") == ["botherat*"]
    assert terms("dumbconfounded") == ["*confound*"]
    assert terms("You silly old mooses") == ["silly old moose"]
    assert terms("What’s up?") == ["what s up"]


@pytest.mark.parametrize("text", ["Two badgers by a cliff", "In the ravine stood a pony"])
def test_context_rule_needs_both_sides_anywhere(text: str) -> None:
    assert terms(text) == ["@animal + cliff | ravine"]


@pytest.mark.parametrize("text", ["a badger", "a cliff", "cliff and ravine", "badger and pony"])
def test_context_rule_is_silent_with_one_side(text: str) -> None:
    assert terms(text) == []


def test_context_may_stand_in_the_answer() -> None:
    joke = Joke("Where did the badger live?", "Halfway up a cliff.")
    assert terms(f"{joke.question}\n{joke.answer}") == ["@animal + cliff | ravine"]


def test_allowed_phrase_is_taken_out_but_not_what_stands_beside_it() -> None:
    assert terms("a blast furnace") == []
    assert terms("blast furnaces are a blast") == ["blast"]


@pytest.mark.parametrize(
    "text",
    [
        "bl4st",
        "b1ast",
        "b!ast",
        "bla$t!",
        "b!4s7",
        "b l a s t",
        "a b l a s t",
        "b.l.a.s.t",
        "b-l-a-s-t",
        "b 1 @ 5 t",
        "bl.ast",
        "bl-ast",
        "blaaaast",
        "bbbblllaaaasssttt",
        "bl*st",
        "b***t",
        "b****",
        "bl@st",
        "bl#st",
        "blаst",  # Cyrillic а
        "βlαѕт",
        "ｂｌａｓｔ",
        "𝒃𝒍𝒂𝒔𝒕",
        "ⓑⓛⓐⓢⓣ",
        "🅱🅻🅰🆂🆃",
        "bläśť",
        "b\u200bl\u200da\u2060s\u00adt",
        "B\u0336L\u0336A\u0336S\u0336T",
    ],
)
def test_disguised_word_is_found(text: str) -> None:
    assert terms(f"Oh {text}, he said") == ["blast"]


@pytest.mark.parametrize(
    "text",
    [
        "7 Eleven, 24/7, 1984, 4 + 5 = 9 and 100%",
        "A 1st prize, the 5th of May, 3pm, $5, R2D2, B&B",
        "plan A, plan B; see a.m. and p.m., U.S.A., e.g. this",
        "M*A*S*H and 2*3*4, *emphasis* and **more**, user_name, me@home.example",
        "Hmmm, sooo good, www.example.org",
    ],
)
def test_numbers_and_signs_of_everyday_text_stay_innocent(text: str) -> None:
    assert not Moderator.default().withholds(text)


WORDS = st.sampled_from(
    ["oh", "blast", "badger", "cliff", "botheration", "silly old moose", "tea", "9", "straße"]
)
TEXTS = st.lists(st.one_of(WORDS, st.text(max_size=6)), max_size=6).map(" ".join)


@given(text=TEXTS, places=st.lists(st.integers(0, 60), max_size=8))
def test_zero_width_signs_never_change_the_verdict(text: str, places: list[int]) -> None:
    hidden = text
    for place in places:
        hidden = hidden[:place] + "\u200b" + hidden[place:]
    assert OWN.check(hidden) == OWN.check(text)


@given(text=TEXTS)
def test_case_never_changes_the_verdict(text: str) -> None:
    assert OWN.check(text.upper()) == OWN.check(text.lower()) == OWN.check(text)


@given(text=st.text())
def test_any_text_is_checked(text: str) -> None:
    OWN.check(text)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("blast", "line 1: 'blast' comes before any"),
        ("[rude topic]\nblast", "line 1: there is no category 'rude'; choose explicit, nsfw"),
        ("[dark]", "line 1: [dark] lacks a severity; write [dark offensive] or [dark topic]"),
        ("[dark mild]", "line 1: there is no severity 'mild'; choose offensive, topic"),
        ("[allowed topic]", "line 1: [allowed] takes no severity; write [allowed]"),
        ("[@animal topic]", "line 1: [@animal] takes no severity; write [@animal]"),
        ("[dark topic]\nBlast", "line 2: cannot read 'Blast'"),
        ("[dark topic]\nbl*st", "line 2: cannot read 'bl*st'"),
        ("[dark topic]\na + ", "line 2: cannot read 'a +'"),
        ("[dark topic]\n@animal + cliff", "line 2: cannot read '@animal'"),
        ("[@animal]\n@animal", "line 2: cannot read '@animal'"),
        ("[allowed]\nblast + furnace", "line 2: cannot read 'blast + furnace'"),
        ("[dark", "line 1: '[dark' comes before any"),
    ],
)
def test_unreadable_line_is_named(source: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Moderator(source)


def test_own_file_is_read_and_its_errors_name_it(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("[political offensive]\npudding tax\n", encoding="utf-8")
    own = Moderator.from_file(path)
    assert own.check("The pudding tax!") == (Flag("political", "offensive", "pudding tax"),)
    assert own.withholds("The pudding tax!")
    path.write_text("[puddings]", encoding="utf-8")
    with pytest.raises(InputError, match=r"own\.txt, line 1"):
        Moderator.from_file(path)
    with pytest.raises(InputError, match=r"cannot read the moderation list .*nowhere\.txt"):
        Moderator.from_file(tmp_path / "nowhere.txt")


RULES = [f"{category} {severity}" for category in CATEGORIES for severity in SEVERITIES]


def shipped_sections() -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    for raw in SHIPPED.splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith("["):
            lines = sections[line[1:-1]] = []
        elif line:
            lines.append(line)
    return sections


def test_shipped_list_says_first_what_it_is_for() -> None:
    assert SHIPPED.startswith("# Rules that say which jokes may offend")


def test_shipped_sections_are_sorted_without_doubles() -> None:
    for name, lines in shipped_sections().items():
        assert lines == sorted(set(lines)), name


def test_shipped_list_has_terms_in_every_category_and_no_idle_group() -> None:
    sections = shipped_sections()
    rules = " ".join(line for name in RULES for line in sections[name])
    assert all(len(sections[f"{category} topic"]) > 50 for category in CATEGORIES)
    assert all(sections[f"{category} offensive"] for category in CATEGORIES)
    assert [name for name in sections if name.startswith("@") and name not in rules] == []


def test_every_shipped_rule_flags_its_own_words() -> None:
    sections, moderator = shipped_sections(), Moderator.default()
    for name in RULES:
        category, _, severity = name.partition(" ")
        for line in sections[name]:
            sides = [side.split(" | ")[0] for side in line.split(" + ")]
            words = [sections[side][0] if side.startswith("@") else side for side in sides]
            found = moderator.match_rules(" so ".join(words).replace("*", ""))
            named = {(flag.category, flag.severity, flag.term) for flag in found}
            assert (category, severity, line.replace("'", " ")) in named, line


def test_no_shipped_rule_stands_in_both_severities() -> None:
    sections = shipped_sections()
    for category in CATEGORIES:
        assert not set(sections[f"{category} offensive"]) & set(sections[f"{category} topic"])


def test_every_shipped_allowance_is_needed_and_works() -> None:
    without, shipped = Moderator(SHIPPED.partition("[allowed]")[0]), Moderator.default()
    for phrase in shipped_sections()["allowed"]:
        text = phrase.replace("*", "")
        assert without.match_rules(text), phrase
        assert not shipped.match_rules(text), phrase


@pytest.mark.parametrize(
    "text",
    [
        "What did the man from Scunthorpe say to the man from Penistone?",
        "Why did the pilot sing in the cockpit? He had a cocktail with a peacock.",
        "Who plays a Dick Van Dyke? Dick Van Dyke does.",
        "Have you read Moby Dick? It is a whale of a book.",
        "How do you get from Essex to Sussex? Through Middlesex, with an assassin of a bus.",
        "What classic grass grows in the class? The bass passes Uranus.",
        "Why did Hitchcock assess Hancock's shuttlecock? To document the circumstances.",
        "What do you call a sparrow in a titanic hat? A blue tit for tat.",
        "The pussycat and the cockatoo ate chicken breast in extra virgin olive oil.",
        "Which spices does the raccoon buy in bulk? Sage, for the sausages.",
        "Oh my god, the holy cow knows kung fu!",
        "How do you get an elephant into a fridge? Open the door, put it in, close the door.",
        "How many mice does it take to screw in a light bulb? Two.",
        "Which came first, the chicken or the egg?",
        "A pen is mightier than a sword, said the therapist.",
    ],
)
def test_innocent_words_are_no_false_alarms(text: str) -> None:
    assert not Moderator.default().match_rules(text)
    assert not Moderator.default().withholds(text)


@pytest.mark.parametrize(
    "text",
    [
        "My mother, father, sister, uncle, wife, husband, son and daughter came to tea.",
        "The baby, the boy, the girl, the woman and the man have hands, arms, legs and noses.",
        "Cats, dogs, cows, sheep, chickens, a donkey, a beaver and a goat walk into a bar.",
        "Bread, cheese, meatballs, sausages, nuts, bananas, a cherry and a cucumber salad.",
        "Germany, France, Mexico, China, India, Nigeria, Israel, Iran and the United States.",
        "Golf balls, tennis balls, snow, a black hat, a white horse and a hole in one.",
        "The doctor, the nurse, the policeman, the teacher and the lawyer went fishing.",
        "The skeleton in the graveyard and the vampire in the coffin met a ghost.",
    ],
)
def test_everyday_words_are_not_flagged_by_themselves(text: str) -> None:
    assert not Moderator.default().match_rules(text)
    assert not Moderator.default().withholds(text)


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("She sells p.o.r.n.o.g.r.a.p.h.y by the seashore.", "nsfw"),
        ("A vicar and a rabbi open a bakery.", "religious"),
        ("What did the president tell the senators?", "political"),
        ("Which damn spoon is mine?", "explicit"),
        ("What did the Japanese gardener grow?", "racist"),
        ("Why is the ugly duckling late?", "sexist"),
        ("What did the murderer knit?", "dark"),
        ("Where do ghosts and skeletons dine? At the morgue.", "dark"),
    ],
)
def test_a_topic_is_named_and_told_in_safe_mode(text: str, category: Category) -> None:
    flags = Moderator.default().check(text)
    assert {(flag.category, flag.severity) for flag in flags} == {(category, "topic")}
    assert not Moderator.default().withholds(text)
    assert Moderator.default().withholds(text, exclude_categories=[category])


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("Who put a c*nt in this tea?", "explicit"),
        ("Why do women talk so much?", "sexist"),
        ("Why do you never trust a beaner?", "racist"),
        ("What is worse than a baby in a blender?", "dark"),
        ("He joked about genocide at dinner.", "dark"),
        ("What did the altar boy say?", "religious"),
    ],
)
def test_what_strangers_should_not_meet_is_withheld(text: str, category: Category) -> None:
    flags = Moderator.default().check(text)
    assert (category, "offensive") in {(flag.category, flag.severity) for flag in flags}
    assert Moderator.default().withholds(text)


@pytest.mark.parametrize(
    "text",
    [
        "Why did the vicar bring a ladder to church? The hymns were too high.",
        "What do you call a politician in a lift? A rising star.",
        "Why did the Irish chef salt the soup? It was a wee bit bland.",
        "What did the ghost order at the bar? Any spirit will do.",
        "Why did the pirate go to school? To improve his arrr-ticulation.",
        "What is a vampire's favorite fruit? A blood orange.",
        "How does a French baker greet the morning? With a roll of the dough.",
        "Why did my wife buy two umbrellas? One was for a rainy day.",
        "What did the old man say to the duck? Put it on my bill.",
        "Why did the bride carry a spoon? She wanted to stir things up.",
        "What do you call a dinosaur with good manners? A please-iosaur.",
        "How many programmers does it take to change a light bulb? None, it is hardware.",
        "Why was the maths book sad? It had too many problems.",
        "Why did the girl bring a pencil to bed? To draw the curtains.",
        "What did the doctor tell the man who swallowed a clock? Give it time.",
        "Why did Moses need a map? He was lost in the desert for years.",
    ],
)
def test_harmless_jokes_are_told(text: str) -> None:
    assert not Moderator.default().withholds(text)


def test_long_and_hostile_text_is_checked() -> None:
    for text in ("a " * 20_000, "a" * 40_000, "b*st " * 8_000, "*" * 40_000, "a*" * 20_000):
        OWN.check(text)
        Moderator.default().check(text)


def test_import_reads_no_list() -> None:
    program = (
        "import builtins, io, sys; opened = []; "
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) "
        "if event == 'open' else None); "
        "import joker.generation.moderation as m; "
        "assert not [name for name in opened if name.endswith('moderation.txt')]; "
        "assert m.Moderator.default() is m.Moderator.default(); "
        "assert [name for name in opened if name.endswith('moderation.txt')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
