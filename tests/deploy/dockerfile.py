"""Reads the Dockerfile's stages for the tests; `docker build` itself runs in CI."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"


@dataclass(frozen=True)
class Stage:
    """A build stage: its base image and its instructions, each with its arguments."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def arguments(self, name: str) -> list[str]:
        """Return the arguments of every instruction of that name, in order."""
        return [arguments for instruction, arguments in self.instructions if instruction == name]

    @property
    def command(self) -> list[str]:
        """The last ``CMD``; empty without one."""
        words: list[str] = json.loads((self.arguments("CMD") or ["[]"])[-1])
        return words


def read_stages() -> dict[str, Stage]:
    """Return the stages of ``deploy/Dockerfile`` by name, in order."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.startswith("FROM"):
            _, base, _, name = line.split()
            stage = stages[name] = Stage(base)
        elif line:
            instruction, _, arguments = line.partition(" ")
            stage.instructions.append((instruction, arguments))
    return stages


STAGES = read_stages()
