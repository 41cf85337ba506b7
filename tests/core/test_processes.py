from __future__ import annotations

import os
from pathlib import Path

import pytest

from joker.core import processes
from joker.core.processes import ProcessMetrics


def add_process(proc: Path, pid: int, children: str, ticks: int) -> None:
    task = proc / str(pid) / "task" / str(pid)
    task.mkdir(parents=True, exist_ok=True)
    (task / "children").write_text(children)
    fields = ["S", *["0"] * 10, str(ticks), *["0"] * 9, "1", *["0"] * 5]
    (proc / str(pid) / "stat").write_text(f"{pid} (joker) {' '.join(fields)}")


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="has no clock ticks")
def test_cpu_time_stays_the_same_when_a_parent_takes_over_its_childs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    ticks_per_second = os.sysconf("SC_CLK_TCK")

    def cpu_seconds() -> float:
        families = {family.name: family for family in ProcessMetrics("x", lambda: 1).collect()}
        return float(families["joker:x_cpu_seconds"].samples[0].value)

    for ticks in range(1, 50):  # some of these sums of seconds are rounded
        add_process(tmp_path, 1, "2 3", 10)
        add_process(tmp_path, 2, "", 20)
        add_process(tmp_path, 3, "", ticks)
        apart = cpu_seconds()
        add_process(tmp_path, 1, "", 30 + ticks)
        assert cpu_seconds() == apart == (30 + ticks) / ticks_per_second
