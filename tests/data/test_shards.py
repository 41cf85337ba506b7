from pathlib import Path

import numpy as np
import pytest

from joker.core.errors import DataError
from joker.data.shards import ShardWriter, TokenShards, TokenStream


def write(folder: Path, ids: list[int], vocabulary_size: int = 8192) -> None:
    writer = ShardWriter(folder, "tales", vocabulary_size, shard_tokens=10)
    for start in range(0, len(ids), 7):
        writer.add(ids[start : start + 7])
    writer.flush()
    assert writer.tokens == len(ids)


def test_any_stretch_reads_back_across_shards(tmp_path: Path) -> None:
    ids = list(range(100, 137))
    write(tmp_path, ids)
    assert len(list(tmp_path.glob("tales-*.npy"))) == 4
    stream = TokenStream(tmp_path, "tales")
    assert len(stream) == 37
    for start in range(38):
        for count in (0, 1, 9, 25):
            assert stream.read(start, count).tolist() == ids[start : start + count]


def test_small_vocabularies_take_two_bytes_a_token(tmp_path: Path) -> None:
    write(tmp_path, [65_535], vocabulary_size=65_536)
    assert np.load(tmp_path / "tales-00000.npy").dtype == np.uint16
    write(tmp_path, [65_536], vocabulary_size=65_537)
    assert TokenStream(tmp_path, "tales").read(0, 1).tolist() == [65_536]


def test_tokens_are_mapped_and_not_read_into_memory(tmp_path: Path) -> None:
    write(tmp_path, list(range(30)))
    stream = TokenStream(tmp_path, "tales")
    assert all(isinstance(shard, np.memmap) for shard in stream._shards)


def test_source_of_which_another_name_begins_stays_apart(tmp_path: Path) -> None:
    write(tmp_path, [1, 2])
    other = ShardWriter(tmp_path, "tales-00000", 10)
    other.add([3])
    other.flush()
    assert len(TokenStream(tmp_path, "tales")) == 2


def test_folder_without_manifest_is_not_complete(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a complete folder"):
        TokenShards.open(tmp_path)
    TokenShards(tmp_path, {"tales": 2}, {"made": "here"}).write_manifest()
    assert TokenShards.open(tmp_path).tokens == {"tales": 2}
    with pytest.raises(DataError, match="no shards of tales"):
        TokenShards.open(tmp_path).stream("tales")


@pytest.mark.parametrize("text", ["{", "{}", '{"format_version": 9}', "[]"])
def test_garbled_manifest_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokens.json").write_text(text)
    with pytest.raises(DataError, match=r"tokens\.json"):
        TokenShards.open(tmp_path)
