from typing import Any

import pytest

from tools.audit import verdict

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
WEAK = {
    "name": "weak",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-0", "fix_versions": ["1.1"]}, {"id": "PYSEC-1", "fix_versions": []}],
}
UNKNOWN = {"name": "unknown", "version": "1.0", "skip_reason": "not found"}


def test_a_weakness_fails_everywhere_and_is_named() -> None:
    lines, code = verdict([SOUND, WEAK, UNKNOWN], must_reach=False)
    assert code == 1
    assert lines == [
        "weak 1.0: PYSEC-0, mended in 1.1",
        "weak 1.0: PYSEC-1, mended in no version yet",
    ]


def test_packages_without_one_pass() -> None:
    assert verdict([SOUND], must_reach=True) == (["audit: no known weakness in 1 packages"], 0)


@pytest.mark.parametrize("packages", [[], [UNKNOWN], [SOUND, UNKNOWN]])
def test_what_was_not_looked_up_is_said_in_one_line_and_fails_in_ci(packages: list[Any]) -> None:
    lines, code = verdict(packages, must_reach=False)
    assert code == 0
    assert len(lines) == 1
    assert "cannot be reached" in lines[0]
    assert verdict(packages, must_reach=True) == (lines, 1)
