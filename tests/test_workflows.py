"""The CI workflow is valid, has few permissions, and names only targets and files that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.deploy.dockerfile import STAGES

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github/workflows/ci.yml"


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.github-workflows", WORKFLOW),
        ("vendor.dependabot", ROOT / ".github/dependabot.yml"),
    ],
)
def test_a_file_keeps_its_published_schema(
    schema: str, path: Path, require: Callable[[str], None]
) -> None:
    require("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_action_is_pinned_by_its_commit() -> None:
    used = re.findall(r"uses: (\S+)", WORKFLOW.read_text())
    assert used
    assert [action for action in used if not re.search(r"@[0-9a-f]{40}$", action)] == []


def test_it_may_only_read() -> None:
    assert yaml.safe_load(WORKFLOW.read_text())["permissions"] == {"contents": "read"}


def test_it_calls_targets_of_the_makefile() -> None:
    matrix = yaml.safe_load(WORKFLOW.read_text())["jobs"]["make"]["strategy"]["matrix"]
    called = {*matrix["target"], *(entry["target"] for entry in matrix["include"])}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"test", "wheel-check", "audit"} <= called <= targets


def test_it_builds_every_image_and_names_files_that_exist() -> None:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["containers"]["steps"]
    commands = "\n".join(step.get("run", "") for step in steps)
    files = re.findall(r"(?:-f|--file) (\S+)", commands)
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []
    targets = re.search(r"for target in (.*);", commands)
    assert targets is not None
    assert targets[1].split() == [name for name, stage in STAGES.items() if stage.command]
