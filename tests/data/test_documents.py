import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from joker.core.errors import DataError
from joker.data.documents import Document, text_files


def write_lines(path: Path, *documents: dict[str, str]) -> None:
    text = "".join(json.dumps(document) + "\n" for document in documents)
    packers: dict[str, Callable[[bytes], bytes]] = {".xz": lzma.compress, ".gz": gzip.compress}
    path.write_bytes(packers.get(path.suffix, bytes)(text.encode()))


def test_files_are_read_in_order_whatever_their_compression(tmp_path: Path) -> None:
    write_lines(tmp_path / "tales-01.jsonl.gz", {"text": "second"})
    write_lines(tmp_path / "tales-00.jsonl.xz", {"text": "first", "source": "attic"})
    write_lines(tmp_path / "talk.jsonl", {"text": "third"})
    (tmp_path / "README.md").write_text("no text of the corpus")
    files = text_files(tmp_path)
    assert [file.source for file in files] == ["tales", "tales", "talk"]
    found = [document for file in files for document in file.documents()]
    assert found == [Document("first", "attic"), Document("second"), Document("third")]


def test_plain_text_is_one_document_a_paragraph(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("\none\nline more\n\n\ntwo\n")
    (file,) = text_files(tmp_path)
    assert [document.text for document in file.documents()] == ["one\nline more", "two"]


def test_file_named_by_a_number_alone_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "2024.txt").write_text("words")
    assert text_files(tmp_path)[0].source == "2024"


@pytest.mark.parametrize("line", ["no json", "[]", '{"title": "no text"}', '{"text": 5}'])
def test_line_without_text_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(DataError, match="line 2"):
        list(text_files(tmp_path)[0].documents())


def test_damaged_compression_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl.xz").write_bytes(b"not xz at all")
    with pytest.raises(DataError, match="cannot read"):
        list(text_files(tmp_path)[0].documents())


def test_folder_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.jsonl"):
        text_files(tmp_path)
    with pytest.raises(DataError, match="no folder"):
        text_files(tmp_path / "absent")
