from __future__ import annotations

import numpy as np
import pytest

from joker.core.joke import Joke
from joker.evaluation.likelihood_metrics import draw_choices, hits

JOKES = [Joke(f"Question {n}?", f"Answer {'x' * (n // 2)} {n}.") for n in range(120)]
APART = list(range(len(JOKES)))


def test_each_question_has_its_own_answer_first_and_nine_others() -> None:
    choices = draw_choices(JOKES, APART, limit=1000, seed=1)
    assert choices.shape == (120, 10)
    assert list(choices[:, 0]) == APART
    assert all(len(set(row)) == 10 for row in choices.tolist())


def test_no_choice_comes_from_the_jokes_own_cluster() -> None:
    clusters = [n // 4 for n in range(120)]
    for own, *others in draw_choices(JOKES, clusters, limit=1000, seed=1).tolist():
        assert own // 4 not in {other // 4 for other in others}


def test_an_answer_told_twice_is_offered_once_and_never_against_itself() -> None:
    jokes = [Joke(f"Question {n}?", f"Answer {n // 6}!") for n in range(66)]
    for own, *others in draw_choices(jokes, range(66), limit=1000, seed=1).tolist():
        assert len({own // 6, *(other // 6 for other in others)}) == 10


def test_an_answer_of_the_cluster_is_not_offered_even_where_others_tell_it() -> None:
    jokes = [Joke(f"Question {n}?", f"Answer {n}.") for n in range(11)]
    jokes += [Joke("Question 0, again?", "Answer 10.")]
    choices = draw_choices(jokes, [*range(11), 0], limit=1000, seed=1)
    of_cluster_0 = [row for row in choices.tolist() if row[0] in (0, 11)]
    assert len(of_cluster_0) == 2
    assert not any({0, 10, 11} & set(row[1:]) for row in of_cluster_0)


def test_choices_have_similar_lengths() -> None:
    lengths = np.array([len(joke.answer) for joke in JOKES])
    choices = draw_choices(JOKES, APART, limit=1000, seed=1)
    gaps = np.abs(lengths[choices] - lengths[choices[:, :1]])
    assert gaps[30:90].max() <= 13  # the 50 nearest of these reach 25 jokes, so 12.5 letters, far


def test_a_limit_asks_a_random_part() -> None:
    some = draw_choices(JOKES, APART, limit=30, seed=1)
    assert some.shape == (30, 10)
    assert set(some[:, 0]) != set(range(30))
    assert draw_choices(JOKES, APART, limit=0, seed=1).shape == (0, 10)


def test_the_seed_decides() -> None:
    first, again, other = (draw_choices(JOKES, APART, limit=9, seed=seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_fewer_than_ten_answers_ask_nothing() -> None:
    assert draw_choices(JOKES[:9], APART[:9], limit=1000, seed=1).shape == (0, 10)


def test_a_hit_is_the_highest_score() -> None:
    assert hits([[3, 1, 2], [1, 3, 2]]).tolist() == [1, 0]


def test_equal_scores_share_the_hit() -> None:
    assert hits([[5, 5, 1], [2, 2, 2]]).tolist() == pytest.approx([1 / 2, 1 / 3])


def test_no_questions_have_no_hits() -> None:
    assert hits(np.empty((0, 10))).tolist() == []
