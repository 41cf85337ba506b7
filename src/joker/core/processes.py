"""Memory and CPU time of all processes of a program, engines included, as Prometheus metrics.

`prometheus_client` measures only one process, and nothing if several share their metrics.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from joker.core.cgroups import memory_limit

_PROC = Path("/proc")


class ProcessMetrics(Collector):
    """The metrics ``joker:NAME_memory_bytes``, its limit and ``joker:NAME_cpu_seconds_total``.

    Args:
        name: What the processes are, such as ``worker``.
        find: Returns the id of the first process; all that descend from it count, those that have
            ended with their CPU time.
        child: What the first process starts, such as ``engine``: then there is also
            ``joker:NAME_CHILD_memory_bytes``, without the first process.
    """

    def __init__(self, name: str, find: Callable[[], int], child: str | None = None) -> None:
        self._name = name
        self._find = find
        self._child = child

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Measure; the values are NaN if there is no ``/proc``."""
        first = self._find()
        pids = _find_family(first)
        for _ in range(5):  # Processes may come and go for ever.
            measured = {pid: use for pid in pids if (use := _measure(pid))}
            before, pids = pids, _find_family(first)
            if pids == before:  # None has handed its CPU time to its parent meanwhile.
                break
        uses = measured.values()
        memory_bytes = sum(each[0] for each in uses) if measured else math.nan
        cpu_seconds = sum(each[1] for each in uses) if measured else math.nan
        yield GaugeMetricFamily(
            f"joker:{self._name}_memory_bytes",
            "Resident memory of all its processes.",
            value=memory_bytes,
        )
        if self._child:
            yield GaugeMetricFamily(
                f"joker:{self._name}_{self._child}_memory_bytes",
                f"Resident memory of its {self._child} alone.",
                value=memory_bytes - measured[first][0] if first in measured else math.nan,
            )
        yield GaugeMetricFamily(
            f"joker:{self._name}_memory_limit_bytes",
            "Memory that its container or else this machine has.",
            value=memory_limit() or math.nan,
        )
        yield CounterMetricFamily(
            f"joker:{self._name}_cpu_seconds",
            "CPU time of all its processes.",
            value=cpu_seconds,
        )


def _find_family(first: int) -> set[int]:
    """Return a process and all that descend from it."""
    found: set[int] = set()
    unseen = [first]
    while unseen:
        pid = unseen.pop()
        if pid not in found:
            found.add(pid)
            for file in (_PROC / str(pid) / "task").glob("*/children"):
                unseen += [int(child) for child in _read(file).split()]
    return found


def _measure(pid: int) -> tuple[float, float] | None:
    """Return a process's memory and CPU time; None if it has ended."""
    fields = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    if not fields:
        return None
    # See proc_pid_stat(5). Children that have ended count towards their parent.
    own_and_ended = sum(map(int, fields[11:15]))
    seconds = own_and_ended / os.sysconf("SC_CLK_TCK")
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), seconds


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
