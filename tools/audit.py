"""Compare the pinned versions with the published advisories; ``make audit`` calls it.

pip-audit asks the package index about every package, and an index that knows no advisories
makes it say that none is known. So what was really looked up is counted here: where that is
not everything, CI fails, and a machine without internet is told so in one line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Package = Mapping[str, Any]


def main(requirements: str) -> int:
    """Audit a file of pinned versions; return the exit code."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--requirement", requirements),
            *("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    packages = json.loads(done.stdout)["dependencies"] if done.stdout else []
    lines, code = verdict(packages, must_reach="CI" in os.environ)
    print(*lines, sep="\n")
    return code


def verdict(packages: Sequence[Package], *, must_reach: bool) -> tuple[list[str], int]:
    """Return what to say about pip-audit's report, and the exit code.

    Args:
        packages: What pip-audit found about each package; none where it had no answer at all.
        must_reach: Whether it is a failure if a package could not be looked up.
    """
    known = [package for package in packages if "vulns" in package]
    lines = [*_weaknesses(known)]
    if lines:
        return lines, 1
    if packages and len(known) == len(packages):
        return [f"audit: no known weakness in {len(known)} packages"], 0
    missed = f"only {len(known)} of {len(packages)} packages were" if known else "no package was"
    return [f"audit: {missed} looked up, the advisory service cannot be reached"], int(must_reach)


def _weaknesses(packages: Iterable[Package]) -> Iterable[str]:
    for package in packages:
        for found in package["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "no version yet"
            yield f"{package['name']} {package['version']}: {found['id']}, mended in {mended}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
