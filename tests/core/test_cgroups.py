from __future__ import annotations

import os
from pathlib import Path

import pytest

from joker.core.cgroups import cpu_quota, memory_limit


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def group(root: Path, lines: str) -> None:
    write(root, **{"proc/self/cgroup": lines})


@pytest.mark.parametrize(
    ("limit", "quota"),
    [
        ("50000 100000\n", 1),
        ("100000 100000\n", 1),
        ("250000 100000\n", 3),
        ("700000 100000\n", 7),
        ("800000 100000\n", None),
        ("6400000 100000\n", None),
        ("max 100000\n", None),
        ("", None),
    ],
)
def test_version_2_is_rounded_up_and_at_most_the_cores(
    limit: str, quota: int | None, tmp_path: Path
) -> None:
    group(tmp_path, "0::/\n")
    write(tmp_path, **{"sys/fs/cgroup/cpu.max": limit})
    assert cpu_quota(tmp_path) == quota


def test_the_smallest_quota_of_all_groups_above_counts(tmp_path: Path) -> None:
    group(tmp_path, "0::/pods/one/server\n")
    write(
        tmp_path,
        **{
            "sys/fs/cgroup/pods/one/server/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pods/one/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pods/cpu.max": "400000 100000\n",
        },
    )
    assert cpu_quota(tmp_path) == 2


def test_a_group_that_only_the_host_can_see_is_found_at_the_mount(tmp_path: Path) -> None:
    group(tmp_path, "0::/system.slice/container-1234.scope\n")
    write(tmp_path, **{"sys/fs/cgroup/cpu.max": "200000 100000\n"})
    assert cpu_quota(tmp_path) == 2


@pytest.mark.parametrize(
    ("controllers", "mount"),
    [("cpu", "cpu"), ("cpu,cpuacct", "cpu,cpuacct"), ("cpu,cpuacct", "cpu")],
)
@pytest.mark.parametrize(("microseconds", "quota"), [("50000", 1), ("350000", 4), ("-1", None)])
def test_version_1_is_read_too(
    controllers: str, mount: str, microseconds: str, quota: int | None, tmp_path: Path
) -> None:
    group(tmp_path, f"4:memory:/box\n3:cpuset:/box\n2:{controllers}:/box\n")
    folder = f"sys/fs/cgroup/{mount}/box"
    write(
        tmp_path,
        **{
            f"{folder}/cpu.cfs_quota_us": f"{microseconds}\n",
            f"{folder}/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cpu_quota(tmp_path) == quota


def test_a_system_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert memory_limit(tmp_path) is None


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("0::/pods/one\n", "sys/fs/cgroup/pods/one/memory.max"),
        ("0::/pods/one\n", "sys/fs/cgroup/pods/memory.max"),
        ("0::/only/seen/by/the/host\n", "sys/fs/cgroup/memory.max"),
        ("5:cpu:/box\n4:memory:/box\n", "sys/fs/cgroup/memory/box/memory.limit_in_bytes"),
    ],
)
@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ("805306368\n", 768 << 20),
        ("max\n", 2 << 30),
        ("9223372036854771712\n", 2 << 30),  # what version 1 says for none
    ],
)
def test_memory_is_what_the_group_may_use_or_the_machine_has(
    groups: str, file: str, limit: str, found: int, tmp_path: Path
) -> None:
    group(tmp_path, groups)
    write(tmp_path, **{file: limit, "proc/meminfo": "MemTotal:  2097152 kB\nMemFree: 1 kB\n"})
    assert memory_limit(tmp_path) == found
