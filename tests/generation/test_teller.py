from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from joker.core.errors import GenerationError, InputError, PromptWithheldError
from joker.core.fingerprints import Fingerprints
from joker.core.joke import Joke, Sampling
from joker.core.model_folder import ModelFolder
from joker.core.template import TEMPLATES
from joker.engines import Engine, GenerationTask, open_engine
from joker.engines.tasks import SEQUENCE_TOKENS
from joker.generation.request import GenerationRequest, draw_seed
from joker.generation.teller import MissingJokesError, Teller
from tests.generation.stub import END, MARKER, StubEngine, ask, excited, good


def test_jokes_are_told_in_one_batch() -> None:
    engine = StubEngine(good)
    told = Teller(engine).tell(ask("Which", count=4, seed=7))
    assert len(engine.batches) == 1
    assert [t.question for t in told] == [f"Which number {t.seed}" for t in told]
    assert {t.answer for t in told} == {"Fine."}
    assert [t.attempts for t in told] == [1] * 4


def test_only_failed_jokes_are_tried_again() -> None:
    spoilt: list[int] = []

    def spoil_two(request: GenerationTask) -> str:
        if len(spoilt) < 2:
            spoilt.append(request.seed)
            return " and so on"
        return good(request)

    engine = StubEngine(spoil_two)
    told = Teller(engine).tell(ask("Which", count=3, seed=7))
    assert [len(batch) for batch in engine.batches] == [3, 2]
    assert [t.attempts for t in told] == [2, 2, 1]
    assert not {request.seed for request in engine.batches[1]} & set(spoilt)


def test_the_same_seed_tells_the_same_jokes() -> None:
    teller = Teller(StubEngine(good))
    assert teller.tell(ask(count=3, seed=5)) == teller.tell(ask(count=3, seed=5))
    assert teller.tell(ask(count=3, seed=5)) != teller.tell(ask(count=3, seed=6))


def test_more_jokes_begin_with_the_same_ones() -> None:
    teller = Teller(StubEngine(good))
    assert teller.tell(ask(count=9, seed=5))[:4] == teller.tell(ask(count=4, seed=5))


def test_a_jokes_own_seed_tells_it_again_after_as_many_tries() -> None:
    engine = StubEngine(lambda r: good(r) if r.seed % 3 == 0 else " or")
    teller = Teller(engine)
    told = teller.tell(ask(count=20, seed=1, max_attempts=100))
    assert max(t.attempts for t in told) > 2
    assert told == [teller.tell(ask(seed=t.seed, max_attempts=100))[0] for t in told]


def test_the_seeds_of_jokes_and_tries_all_differ() -> None:
    engine = StubEngine(lambda _: "")
    with pytest.raises(MissingJokesError):
        Teller(engine).tell(ask(count=50, seed=0, max_attempts=20))
    seeds = [request.seed for batch in engine.batches for request in batch]
    assert len(set(seeds)) == len(seeds) == 1000
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_the_candidate_whose_answer_fits_best_is_told() -> None:
    engine = StubEngine(excited)
    told = Teller(engine).tell(ask(count=3, seed=7, candidates=8))
    (batch,) = engine.batches
    drawn = [1 + request.seed % 50 for request in batch]
    assert [t.answer.count("!") for t in told] == [
        max(drawn[start : start + 8]) for start in (0, 8, 16)
    ]
    assert all(t.score is not None for t in told)


def test_a_single_candidate_is_not_scored() -> None:
    engine = StubEngine(excited)
    told = Teller(engine).tell(ask(count=3, seed=7))
    assert not engine.scored
    assert [t.score for t in told] == [None] * 3


def test_candidates_that_are_all_alike_are_not_scored() -> None:
    engine = StubEngine(lambda _: f" x{MARKER}y{END}")
    (told,) = Teller(engine).tell(ask(candidates=8))
    assert told.pair == Joke("x", "y")
    assert not engine.scored


def test_the_first_of_candidates_that_fit_alike_is_told() -> None:
    told = Teller(StubEngine(good)).tell(ask(count=5, seed=7, candidates=8))
    unrated = [replace(t, score=None) for t in told]
    assert unrated == Teller(StubEngine(good)).tell(ask(count=5, seed=7))


def test_candidates_with_a_fault_are_left_out() -> None:
    said = [
        f" x{MARKER}!!!",
        f"{MARKER}!!!{END}",
        f" x{MARKER}Genocidal!!!{END}",
        f" x{MARKER}y{END}",
    ]
    endings = iter(said)
    (told,) = Teller(StubEngine(lambda _: next(endings))).tell(ask(candidates=4))
    assert (told.pair, told.attempts) == (Joke("x", "y"), 1)


def test_candidates_are_drawn_again_when_all_have_a_fault() -> None:
    fine = [f" x{MARKER}y{END}", f" x{MARKER}!{END}", f" x{MARKER}z{END}"]
    endings = iter([" or", " and", END, *fine])
    engine = StubEngine(lambda _: next(endings))
    (told,) = Teller(engine).tell(ask(candidates=3))
    assert (told.pair, told.attempts) == (Joke("x", "!"), 2)
    assert [len(batch) for batch in engine.batches] == [3, 3]


def test_faults_of_all_candidates_are_counted() -> None:
    with pytest.raises(MissingJokesError, match="12 cut off\\); raise max_new_tokens"):
        Teller(StubEngine(lambda _: "")).tell(ask(max_attempts=3, candidates=4))


def test_ranked_jokes_depend_on_their_own_seed_alone() -> None:
    engine = StubEngine(lambda r: excited(r) if r.seed % 9 == 0 else " or")
    teller = Teller(engine)
    told = teller.tell(ask(count=9, seed=5, max_attempts=100, candidates=4))
    assert max(t.attempts for t in told) > 2
    assert told[:4] == teller.tell(ask(count=4, seed=5, max_attempts=100, candidates=4))
    assert told == [teller.tell(ask(seed=t.seed, max_attempts=100, candidates=4))[0] for t in told]


def test_the_seeds_of_candidates_all_differ() -> None:
    engine = StubEngine(lambda _: "")
    with pytest.raises(MissingJokesError):
        Teller(engine).tell(ask(count=20, seed=0, max_attempts=10, candidates=8))
    seeds = [request.seed for batch in engine.batches for request in batch]
    assert len(set(seeds)) == len(seeds) == 1600


def test_the_likeliest_tokens_give_one_candidate() -> None:
    engine = StubEngine(good)
    Teller(engine).tell(ask(sampling=Sampling(temperature=0), candidates=8))
    assert [len(batch) for batch in engine.batches] == [1]


def test_jokes_that_were_never_told_are_counted_with_reasons() -> None:
    endings = iter([" cut off", f"{END}", f"{MARKER}a{MARKER}b{END}", f"{MARKER}{END}"])
    with pytest.raises(GenerationError) as caught:
        Teller(StubEngine(lambda _: next(endings))).tell(ask("Why", max_attempts=4))
    assert "in 4 attempts" in str(caught.value)
    assert "1 cut off" in str(caught.value)
    assert "3 malformed" in str(caught.value)
    assert str(caught.value).endswith("; try another prompt or seed")
    assert caught.value.exit_code == 5


def test_a_failure_still_holds_the_jokes_that_were_told() -> None:
    seeds = [t.seed for t in Teller(StubEngine(good)).tell(ask(count=3, seed=2))]
    engine = StubEngine(lambda r: good(r) if r.seed in (seeds[0], seeds[2]) else "")
    with pytest.raises(MissingJokesError, match="1 of 3 jokes") as caught:
        Teller(engine).tell(ask(count=3, seed=2))
    assert [t.seed for t in caught.value.jokes] == [seeds[0], seeds[2]]


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(top_k=1)])
def test_greedy_jokes_are_tried_once(sampling: Sampling) -> None:
    engine = StubEngine(lambda _: "")
    with pytest.raises(MissingJokesError, match="in one attempt"):
        Teller(engine).tell(ask(sampling=sampling))
    assert len(engine.batches) == 1


def test_a_whole_question_gets_its_answer() -> None:
    (told,) = Teller(StubEngine(lambda _: f" A rug.{END}")).tell(ask("What lies on floors?"))
    assert told.pair == Joke("What lies on floors?", "A rug.")


@pytest.mark.parametrize(
    "prompt",
    [
        "Why <|answer|> no",
        "<|question|> Why <|endoftext|> <\\|answer|>",
        "Why do 🦄👩‍👩‍👧 dance",
        "[bold]Why[/bold]",
    ],
)
def test_the_told_question_begins_with_the_prompt(prompt: str) -> None:
    (told,) = Teller(StubEngine(good)).tell(ask(prompt))
    assert told.question.startswith(f"{prompt} number")
    assert told.answer == "Fine."


def test_control_characters_and_line_ends_of_a_prompt_are_spaces() -> None:
    engine = StubEngine(good)
    Teller(engine).tell(ask(" Why\x1b[2J\r\ndo\x00 \x9bcats\udcff\t"))
    assert engine.batches[0][0].prompt_ids == engine.tokenizer.encode_prompt("Why [2J do cats")


def test_told_jokes_hold_no_control_characters_but_line_feeds() -> None:
    script = f" a\x1b]0;b\x07{MARKER}\x9bc\td\ne\x7f{END}"
    (told,) = Teller(StubEngine(lambda _: script)).tell(ask("Why"))
    assert told.pair == Joke("Why a ]0;b", "c d\ne")


def test_a_joke_ends_at_a_stop_and_is_tried_again_where_nothing_stands_before_it() -> None:
    answers = iter(["!!", "Fine! Or so they say.", "Never better."])

    def stopping(request: GenerationTask) -> str:
        return f" number 1{MARKER}{next(answers)}{END}"

    told = Teller(StubEngine(stopping)).tell(ask("Why", 2, Sampling(stop=("!", "?"))))
    assert [(one.answer, one.attempts) for one in told] == [("Never better.", 2), ("Fine", 1)]


def test_broken_characters_are_tried_again() -> None:
    endings = iter([f" x{MARKER}\ufffd{END}", f" x{MARKER}y{END}"])
    (told,) = Teller(StubEngine(lambda _: next(endings))).tell(ask())
    assert told.attempts == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"count": 0}, "count"),
        ({"count": -5}, "count"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"candidates": 0}, "candidates"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, int], named: str) -> None:
    with pytest.raises(InputError, match=named):
        GenerationRequest(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ({"candidates": 1}, 1),
        ({"candidates": 1, "sampling": Sampling(max_new_tokens=128)}, 1),
        ({"candidates": 1, "sampling": Sampling(max_new_tokens=256)}, 2),
        ({"candidates": 1, "sampling": Sampling(max_new_tokens=156), "prompt": "cat" * 100}, 2),
        ({"count": 3, "candidates": 16}, 48),
        ({"count": 10, "candidates": 16}, 64),
        ({"count": 10, "candidates": 100}, 100),
    ],
)
def test_a_request_occupies_what_it_drafts_at_once(options: dict[str, Any], places: int) -> None:
    assert GenerationRequest(**options).tokens == places * SEQUENCE_TOKENS


def test_drawn_seeds_are_seeds() -> None:
    seeds = {draw_seed() for _ in range(100)}
    assert len(seeds) > 90
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.fixture(scope="module")
def engine(served_folder: ModelFolder) -> Engine:
    return open_engine(served_folder, reproducible=True)


@pytest.mark.integration
def test_a_real_model_tells_what_it_learnt(engine: Engine, sample_jokes: list[Joke]) -> None:
    told = Teller(engine).tell(ask(count=5, seed=1))
    assert {t.pair for t in told} <= set(sample_jokes)


@pytest.mark.integration
def test_a_real_model_answers_a_whole_question(engine: Engine, sample_jokes: list[Joke]) -> None:
    (told,) = Teller(engine).tell(ask(sample_jokes[6].question, sampling=Sampling(temperature=0)))
    assert told.pair == sample_jokes[6]


@pytest.mark.integration
def test_a_real_models_failures_are_tried_until_they_succeed(engine: Engine) -> None:
    told = Teller(engine).tell(ask("Why do", 10, Sampling(1.8), seed=3, max_attempts=60))
    assert len(told) == 10
    assert max(t.attempts for t in told) > 1
    assert all(t.question.startswith("Why do") for t in told)


@pytest.mark.integration
def test_a_prompt_too_long_for_the_model_is_refused(engine: Engine) -> None:
    with pytest.raises(InputError, match="leaves no room"):
        Teller(engine).tell(ask("why " * 500))


def test_an_offensive_joke_is_tried_again_unless_told_otherwise() -> None:
    rude = f"? <|answer|> A genocidal rug.{END}"
    endings = iter([rude, f"? <|answer|> A woollen rug.{END}"])
    engine = StubEngine(lambda _: next(endings))
    (told,) = Teller(engine).tell(ask("What lies on floors", seed=1))
    assert (told.answer, told.attempts) == ("A woollen rug.", 2)
    engine = StubEngine(lambda _: rude)
    (told,) = Teller(engine).tell(ask("What lies on floors", seed=1, safe=False))
    assert told.answer == "A genocidal rug."


def test_a_topic_is_told_in_safe_mode_unless_its_category_is_excluded() -> None:
    topical = f"? <|answer|> The senators.{END}"
    endings = iter([topical, f"? <|answer|> A woollen rug.{END}"])
    engine = StubEngine(lambda _: topical)
    (told,) = Teller(engine).tell(ask("What lies on floors", seed=1))
    assert told.answer == "The senators."
    (told,) = Teller(engine).tell(ask("What lies on floors", seed=1, exclude_categories=["dark"]))
    assert told.answer == "The senators."
    engine = StubEngine(lambda _: next(endings))
    request = ask("What lies on floors", seed=1, exclude_categories=["political"])
    (told,) = Teller(engine).tell(request)
    assert told.answer == "A woollen rug."


def test_a_prompt_that_is_flagged_itself_is_said_to_be_withheld() -> None:
    engine = StubEngine(lambda _: f"? <|answer|> A rug.{END}")
    with pytest.raises(PromptWithheldError, match="moderation withholds this prompt"):
        Teller(engine).tell(ask("What genocidal thing", seed=1))
    with pytest.raises(PromptWithheldError, match="moderation withholds this prompt"):
        Teller(engine).tell(ask("What senator", seed=1, exclude_categories=["political"]))
    assert engine.batches == [], "no draft could pass, so none is drawn"
    assert Teller(engine).tell(ask("What genocidal thing", seed=1, safe=False))


OLD = Joke("Which clock is late?", "The one that stopped to ask the way!!!")
FRESH = f" boat is early?{MARKER}One with the wind behind it.{END}"


def old(_: GenerationTask) -> str:
    return f" clock is late?{MARKER}{OLD.answer}{END}"


def test_a_new_joke_is_told_rather_than_a_learnt_one_that_fits_better() -> None:
    seen: list[GenerationTask] = []

    def script(request: GenerationTask) -> str:
        seen.append(request)
        return FRESH if len(seen) == 2 else old(request)

    teller = Teller(StubEngine(script), fingerprints=Fingerprints.of([OLD]))
    (told,) = teller.tell(ask("Which", candidates=4))
    assert told.question == "Which boat is early?"
    assert told.attempts == 1
    assert told.original is not False


def test_another_try_is_made_for_want_of_a_new_joke() -> None:
    answers = iter([old(GenerationTask([], Sampling(), 0))] * 2 + [FRESH])
    script = StubEngine(lambda _: next(answers))
    (told,) = Teller(script, fingerprints=Fingerprints.of([OLD])).tell(ask("Which"))
    assert told.attempts == 3
    assert told.similarity is not None
    assert told.original is not False


def test_a_learnt_joke_is_told_and_called_so_where_no_try_brings_another() -> None:
    engine = StubEngine(old)
    (told,) = Teller(engine, fingerprints=Fingerprints.of([OLD])).tell(ask("Which", max_attempts=3))
    assert told.pair == OLD
    assert told.original is False
    assert told.attempts == 1
    assert len(engine.batches) == 3


def test_nothing_is_called_retold_where_the_training_jokes_are_unknown() -> None:
    (told,) = Teller(StubEngine(old)).tell(ask("Which"))
    assert told.original is None
    assert told.original is not False


@pytest.mark.parametrize("punchline_first", [True, False])
def test_behind_a_punchline_a_draft_that_asks_something_is_preferred(punchline_first: bool) -> None:
    template = replace(TEMPLATES["original"], punchline_first=punchline_first)

    def script(task: GenerationTask) -> str:
        asks = len(stub.batches[-1]) - 1 == stub.batches[-1].index(task)
        question, answer = ("Why do owls hum?", "They forgot.") if asks else ("An owl.", "Hum!!!")
        if punchline_first:
            return f" {answer}\n<|question|> {question}{END}"
        return f" {question}\n<|answer|> {answer}{END}"

    stub = StubEngine(script, template)
    (joke,) = Teller(stub).tell(ask(candidates=4))
    assert joke.question == ("Why do owls hum?" if punchline_first else "An owl.")
