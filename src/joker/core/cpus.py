"""How many CPUs the control group of this process allows it: a container's CPU limit.

Libraries that count cores start too many threads in a container that is limited to a few.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MOUNT = "sys/fs/cgroup"


def cpu_quota(root: Path = Path("/")) -> int | None:
    """Return the CPU quota in whole CPUs, rounded up; None where nothing limits this process.

    The smallest quota among the process's group and the groups above it counts. A quota of as many
    CPUs as the process may run on, or more, is none.

    Args:
        root: Where ``proc`` and ``sys`` are.
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
    """Yield the folder of a group and of those above it.

    In a container the group may be named as the host sees it, so that only the mount exists.
    """
    path = PurePosixPath(group.lstrip("/"))
    for part in (path, *path.parents):
        yield mount / part


def _read_v2(folder: Path) -> Iterator[float]:
    """Yield the quota in ``cpu.max``: microseconds, or ``max`` for none, in each period."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        yield int(quota) / int(period)


def _read_v1(folder: Path) -> Iterator[float]:
    """Yield the quota of two files in microseconds, of which the first holds -1 for none."""
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal():
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
