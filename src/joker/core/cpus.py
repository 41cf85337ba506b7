"""The CPU limit that control groups set for this process, such as a container's.

Libraries that count cores start too many threads in a container that is limited to a few.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MOUNT = "sys/fs/cgroup"


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Return the CPU quota in whole CPUs, rounded up; None if nothing limits this process.

    This is the smallest quota of the process's group and the groups above it. A quota that is not
    below the number of CPUs the process may run on does not count.

    Args:
        root: The folder that contains ``proc`` and ``sys``.
    """
    quotas = list(_quotas(root))
    if not quotas:
        return None
    whole = math.ceil(min(quotas))
    return whole if whole < _cores() else None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        hierarchy, controllers, group = line.split(":", 2)
        if hierarchy == "0":
            for folder in _folders(root / _MOUNT, group):
                yield from _read_v2(folder)
        elif "cpu" in controllers.split(","):
            # Distributions mount it under all its names, under the first one, or both.
            for name in {controllers, "cpu"}:
                for folder in _folders(root / _MOUNT / name, group):
                    yield from _read_v1(folder)


def _folders(mount: Path, group: str) -> Iterator[Path]:
    """Yield the folders of a group and of the groups above it.

    In a container the group may have the host's name for it, and then only the mount exists.
    """
    path = PurePosixPath(group.lstrip("/"))
    for part in (path, *path.parents):
        yield mount / part


def _read_v2(folder: Path) -> Iterator[float]:
    """Yield the quota in ``cpu.max``: microseconds per period, or ``max`` for no limit."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        yield int(quota) / int(period)


def _read_v1(folder: Path) -> Iterator[float]:
    """Yield the quota from two files in microseconds; a quota of -1 means no limit."""
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal():
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
