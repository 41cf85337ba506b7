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
        find_root: Returns the pid of the root process. Its descendants count too, and the CPU time
            of those that have ended.
        child: What the root process starts, such as ``engine``: then there is also
            ``joker:NAME_CHILD_memory_bytes``, without the root process.
    """

    def __init__(self, name: str, find_root: Callable[[], int], child: str | None = None) -> None:
        self._name = name
        self._find_root = find_root
        self._child = child

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Measure; the values are NaN if there is no ``/proc``."""
        root = self._find_root()
        pids = _process_tree(root)
        for _ in range(5):
            usages = {pid: usage for pid in pids if (usage := _measure(pid))}
            before, pids = pids, _process_tree(root)
            # A process that ended in between may be counted twice: its parent takes over its time.
            if pids == before:
                break
        memory_bytes = sum(memory for memory, _ in usages.values()) if usages else math.nan
        # Whole ticks: a sum of seconds depends on how processes share them, and a counter that
        # falls by a rounding error counts as reset.
        ticks = sum(ticks for _, ticks in usages.values()) if usages else math.nan
        cpu_seconds = ticks / os.sysconf("SC_CLK_TCK")
        yield GaugeMetricFamily(
            f"joker:{self._name}_memory_bytes",
            "Resident memory of all its processes.",
            value=memory_bytes,
        )
        if self._child:
            yield GaugeMetricFamily(
                f"joker:{self._name}_{self._child}_memory_bytes",
                f"Resident memory of its {self._child} alone.",
                value=memory_bytes - usages[root][0] if root in usages else math.nan,
            )
        yield GaugeMetricFamily(
            f"joker:{self._name}_memory_limit_bytes",
            "Memory limit of its container, or else the memory of this machine.",
            value=memory_limit() or math.nan,
        )
        yield CounterMetricFamily(
            f"joker:{self._name}_cpu_seconds",
            "CPU time of all its processes.",
            value=cpu_seconds,
        )


def _process_tree(root: int) -> set[int]:
    """Return the pids of a process and all its descendants."""
    found: set[int] = set()
    unseen = [root]
    while unseen:
        pid = unseen.pop()
        if pid not in found:
            found.add(pid)
            for file in (_PROC / str(pid) / "task").glob("*/children"):
                unseen += map(int, _read(file).split())
    return found


def _measure(pid: int) -> tuple[int, int] | None:
    """Return a process's memory in bytes and its CPU time in ticks; None if it has ended."""
    fields = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    if not fields:
        return None
    # See proc_pid_stat(5). Children that have ended count towards their parent.
    own_and_ended = sum(map(int, fields[11:15]))
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), own_and_ended


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
