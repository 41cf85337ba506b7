from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from joker.core.errors import ConfigError
from joker.worker import heartbeat
from joker.worker.heartbeat import beating


def test_the_file_stays_young_and_goes_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_PAUSE_SECONDS", 0.01)
    file = tmp_path / "heartbeat"
    with beating(file):
        os.utime(file, (0, 0))
        until = time.monotonic() + 60
        while file.stat().st_mtime == 0:
            assert time.monotonic() < until, "the file grew old"
            time.sleep(0.01)
    assert not file.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"nowhere.*JOKER_HEARTBEAT"),
        beating(tmp_path / "nowhere" / "heartbeat"),
    ):
        pass
