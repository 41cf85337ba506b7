from pathlib import Path

import numpy as np
import pytest

from joker.core.errors import ModelFolderError
from joker.core.fingerprints import FILE, Fingerprints
from joker.core.joke import Joke
from joker.core.similarity import normalize_joke
from tests.core.reference import jaccard

STRANGE = Joke("What is the tallest word on the shelf?", "Anything written by a giraffe.")


@pytest.fixture(scope="module")
def known(sample_jokes: list[Joke]) -> Fingerprints:
    return Fingerprints.of(sample_jokes)


def test_training_joke_is_recognised_however_it_is_written(
    known: Fingerprints, sample_jokes: list[Joke]
) -> None:
    for joke in sample_jokes:
        shouted = Joke(joke.question.upper(), joke.answer.replace(",", " ... "))
        assert known.estimate(shouted) == (1.0, True)


def test_estimate_lies_near_the_exact_similarity(sample_jokes: list[Joke]) -> None:
    errors = []
    for joke in sample_jokes:
        for kept in (0.4, 0.6, 0.8):
            start = joke.question[: int(len(joke.question) * kept)].strip()
            changed = Joke(start, joke.answer)
            exact = jaccard(normalize_joke(joke), normalize_joke(changed))
            errors.append(Fingerprints.of([joke]).estimate(changed).similarity - exact)
    assert abs(np.mean(errors)) < 0.03
    assert np.std(errors) < 0.1


def test_known_answer_to_another_question_is_retold(known: Fingerprints) -> None:
    found = known.estimate(Joke("Where do ships doze off?", "A nap with a view!"))
    assert found.near_duplicate
    assert found.similarity < 0.5


def test_new_joke_is_not_retold(known: Fingerprints) -> None:
    assert not known.estimate(STRANGE).near_duplicate
    assert not known.estimate(Joke("?", "!")).near_duplicate


def test_file_reads_back_and_holds_no_joke(
    known: Fingerprints, tmp_path: Path, sample_jokes: list[Joke]
) -> None:
    known.save(tmp_path)
    read = Fingerprints.load(tmp_path)
    assert read is not None
    assert np.array_equal(read.sketches, known.sketches)
    assert np.array_equal(read.answers, known.answers)
    assert b"kettle" not in (tmp_path / FILE).read_bytes()
    assert (tmp_path / FILE).stat().st_size < 1_000 + 50 * len(sample_jokes)


def test_joined_fingerprints_know_the_jokes_of_both(known: Fingerprints) -> None:
    joined = Fingerprints.join([known, Fingerprints.of([STRANGE]), known])
    assert joined.estimate(STRANGE).near_duplicate
    assert len(joined.sketches) == len(known.sketches) + 1


def test_no_jokes_have_fingerprints_that_recognise_nothing(tmp_path: Path) -> None:
    none = Fingerprints.of([])
    none.save(tmp_path)
    assert none.estimate(STRANGE) == (0.0, False)
    assert Fingerprints.load(tmp_path) is not None


def test_folder_without_fingerprints_has_none(tmp_path: Path) -> None:
    assert Fingerprints.load(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"no archive"])
def test_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ModelFolderError, match="cannot read"):
        Fingerprints.load(tmp_path)
    np.savez(tmp_path / FILE, sketches=np.zeros((2, 9)), answers=np.zeros(1))
    with pytest.raises(ModelFolderError, match="another format"):
        Fingerprints.load(tmp_path)
