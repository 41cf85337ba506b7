"""The limits that control groups set for this process, such as a container's.

Libraries that count cores start too many threads in a container that is limited to a few.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MOUNT = "sys/fs/cgroup"


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Return the CPU quota in whole CPUs, rounded up; None if there is none below the CPU count.

    It is the smallest quota of the process's group and the groups above it, as told by ``proc`` and
    ``sys`` in the folder ``root``.
    """
    quotas = [
        int(microseconds) / int(period)
        for microseconds, period in _cpu_limits(root)
        if microseconds.isdecimal() and period.isdecimal()  # otherwise "max", -1 or no file
    ]
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    whole = math.ceil(min(quotas, default=cores))
    return whole if whole < cores else None


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process may use with the others of its group.

    It is the smallest of the machine's memory and the limits of the process's group and the groups
    above it; None if none is known.
    """
    total = _read(root / "proc/meminfo").partition("MemTotal:")[2].split(maxsplit=2)
    limits = [
        _read(folder / name)
        for folder in _groups(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
    ]
    sizes = [int(limit) for limit in limits if limit.isdecimal()]
    if total:
        sizes.append(int(total[0]) * 1024)
    return min(sizes, default=None)


def _cpu_limits(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the CPU time per period, and the period, of the process's groups."""
    for folder in _groups(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        yield quota, period
        yield _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders with the limits of the process's groups, in both versions of cgroups."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, controllers, group = line.split(":", 2)
        if hierarchy == "0":
            yield from _with_parents(root / _MOUNT, group)
        elif controller in controllers.split(","):
            # Distributions mount it under all its names, under the first one, or both.
            for name in {controllers, controller}:
                yield from _with_parents(root / _MOUNT / name, group)


def _with_parents(mount: Path, group: str) -> list[Path]:
    # In a container, the group may have the name it has on the host; then only the mount exists.
    path = PurePosixPath(group.lstrip("/"))
    return [mount / each for each in (path, *path.parents)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
