import csv
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from joker.core.errors import DataError
from joker.data.sources import DATASETS, Dataset, Row, Source, download, read_rows


def rows(path: Path, question: str = "question", answer: str = "answer") -> list[Row]:
    return list(read_rows(Source.custom(path, question, answer)))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_data_1_is_read_by_its_columns(tmp_path: Path) -> None:
    file = write(tmp_path / "jokes.csv", 'ID,Question,Answer\n7,Who?,"An owl,\nof course"\n')
    assert list(read_rows(Source.qa_jokes(file))) == [Row("7", "Who?", "An owl,\nof course", None)]


def test_data_2_is_read_by_its_columns(tmp_path: Path) -> None:
    header = ",id,score,q,a,timestamp,name\n"
    file = write(tmp_path / "x.csv", f"{header}0,abc,41,Who?,An owl,1293969347.0,someone\n")
    assert list(read_rows(Source.rjokes(file))) == [Row("abc", "Who?", "An owl", 41)]


def test_own_columns_are_found_whatever_their_case(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", "Punchline, SETUP \nAn owl,Who?\n")
    assert rows(file, "setup", "punchline") == [Row("1", "Who?", "An owl", None)]
    assert Source.custom(file).name == "mine"


def test_jsonl_is_read_line_by_line(tmp_path: Path) -> None:
    lines = [
        {"Question": "Who?", "answer": "An owl", "id": 3, "score": 5.0},
        {"question": "How many?", "answer": 42},
        {"question": None, "answer": "x", "score": "many"},
        {"question": "a", "answer": "b", "score": 1e30, "id": "\ud800"},
    ]
    file = write(tmp_path / "mine.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert rows(file) == [
        Row("3", "Who?", "An owl", 5),
        Row("2", "How many?", "42", None),
        Row("3", "", "x", None),
        Row("?", "a", "b", None),
    ]


@pytest.mark.parametrize(
    "encoded",
    [
        "question,answer\nWho’s it?,café\n".encode(),
        "question,answer\nWho’s it?,café\n".encode("utf-8-sig"),
        "question,answer\nWho’s it?,café\n".encode("utf-16"),
        "question,answer\nWho’s it?,café\n".encode("cp1252"),
        "question,answer\nWho’s it?,".encode() + "café\n".encode("cp1252"),
    ],
    ids=["utf-8", "utf-8 with mark", "utf-16", "cp1252", "mixed"],
)
def test_encodings_are_told_apart(tmp_path: Path, encoded: bytes) -> None:
    assert rows(write(tmp_path / "mine.csv", encoded)) == [Row("1", "Who’s it?", "café", None)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.csv", "", "is empty"),
        ("blank.csv", " \n\n ", "is empty"),
        ("mark.csv", b"\xef\xbb\xbf", "its columns are none"),
        ("header.csv", "question,answer\n", "has no rows"),
        (
            "other.csv",
            "title,body\nWho?,An owl\n",
            "has no column 'question'; its columns are 'title'",
        ),
        (
            "short.csv",
            "question,answer\nWho?,An owl\nWho?\n",
            "line 3: 1 field where the header has 2",
        ),
        ("long.csv", "question,answer\nWho?,An owl,or not\n", "line 2: 3 fields"),
        ("open.csv", 'question,answer\nWho?,"An owl\nWho?,x\n', "broken quoting"),
        ("torn.csv", 'question,answer\n"Who" knows?,An owl\n', "line 2: broken quoting"),
        ("binary.csv", b"PK\x03\x04\0\0rest", "is a binary file"),
        ("odd.csv", b"\xff\xfe\x00\xd8x\0", "is not text"),
        ("jokes.txt", "question,answer\n", "is neither .csv nor .jsonl"),
        ("broken.jsonl", '{"question": "Who?"\n', "line 1: not JSON"),
        ("deep.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("list.jsonl", '\n["Who?", "An owl"]\n', "line 2: expected an object"),
        ("lacks.jsonl", '{"question": "Who?"}\n', "line 1 has no column 'answer'"),
        (
            "nested.jsonl",
            '{"question": ["Who?"], "answer": "x"}\n',
            "row 1: 'question' is not text",
        ),
    ],
)
def test_a_malformed_file_is_one_sentence(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    with pytest.raises(DataError) as refused:
        rows(write(tmp_path / name, content))
    assert said in str(refused.value)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        rows(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder"):
        rows(tmp_path)


def test_a_very_long_field_is_read_and_the_limit_restored(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    file = write(tmp_path / "mine.csv", f"question,answer\nWho?,{'x' * 200_000}\n")
    assert len(rows(file)[0].answer) == 200_000
    assert csv.field_size_limit() == before


OWLS = Dataset("someone/owls", "owls.csv")


def test_the_two_public_sets_are_known() -> None:
    assert [dataset.slug for dataset in DATASETS] == [
        "jiriroz/qa-jokes",
        "cuddlefish/reddit-rjokes",
    ]


@pytest.fixture
def kagglehub(require: Callable[[str], None]) -> ModuleType:
    require("kagglehub")
    return importlib.import_module("kagglehub")


def answering(place: Path) -> Callable[[str], str]:
    """Return what Kaggle's client would, once it has fetched a data set into a cache."""

    def dataset_download(slug: str) -> str:
        assert slug == OWLS.slug
        return str(place)

    return dataset_download


def test_the_wanted_file_is_put_into_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kagglehub: ModuleType
) -> None:
    (tmp_path / "cache/versions/2").mkdir(parents=True)
    (tmp_path / "cache/versions/2/owls.csv").write_text("ID,Question,Answer\n")
    monkeypatch.setattr(kagglehub, "dataset_download", answering(tmp_path / "cache"))
    found = download(OWLS, tmp_path / "data")
    assert found == tmp_path / "data/owls.csv"
    assert found.read_text() == "ID,Question,Answer\n"


def test_a_failure_says_how_to_get_the_file_manually(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kagglehub: ModuleType
) -> None:
    monkeypatch.setattr(kagglehub, "dataset_download", answering(tmp_path))
    with pytest.raises(DataError) as refused:
        download(OWLS, tmp_path / "data")
    said = str(refused.value)
    assert "failed; download it manually: open" in said
    assert said.endswith("(the reason: there is no owls.csv in it)")
    assert "https://www.kaggle.com/datasets/someone/owls" in said
    assert str(tmp_path / "data") in said
    assert "\n" not in said
