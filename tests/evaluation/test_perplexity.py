from __future__ import annotations

from joker.evaluation.perplexity import cut_blocks


def joke(length: int, first: int) -> list[int]:
    return [0, *range(first, first + length)]


def test_blocks_run_across_jokes_and_drop_start_tokens_and_the_remainder() -> None:
    blocks = cut_blocks([joke(100, first=1), joke(100, first=101), joke(100, first=201)])
    assert blocks == [list(range(1, 129)), list(range(129, 257))]


def test_exactly_one_block_is_kept() -> None:
    assert len(cut_blocks([joke(128, first=1)])) == 1


def test_less_than_a_block_is_nothing() -> None:
    assert cut_blocks([joke(127, first=1)]) == []
