from __future__ import annotations

from pathlib import Path

import pytest

from tools.add_field import JOKE, SAMPLING, Addition, find


@pytest.mark.integration
@pytest.mark.parametrize("addition", [SAMPLING, JOKE], ids=["sampling", "joke"])
def test_a_field_is_added_in_few_files_and_found_everywhere(
    addition: Addition, tmp_path: Path
) -> None:
    assert find(addition, tmp_path) == addition.expected
    assert len(addition.files) <= addition.most_files


@pytest.mark.integration
@pytest.mark.parametrize("addition", [SAMPLING, JOKE], ids=["sampling", "joke"])
def test_a_field_that_was_not_added_is_not_found(addition: Addition, tmp_path: Path) -> None:
    complaint = find(addition, tmp_path, added=False)
    assert isinstance(complaint, str)
    assert addition.name in complaint
