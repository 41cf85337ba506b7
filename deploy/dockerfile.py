"""Reads a Dockerfile: its stages and their steps, as `rehearse` carries them out.

It understands the instructions that ours use and refuses the others by name, so that nothing
is passed over in silence.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from string import Template

KNOWN = ("ARG", "CMD", "COPY", "ENV", "EXPOSE", "RUN", "USER", "WORKDIR")
_FROM = re.compile(r"(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?", re.IGNORECASE)


class DockerfileError(Exception):
    """A Dockerfile that cannot be understood; the message names the line."""


@dataclass(frozen=True)
class Step:
    """One instruction.

    Attributes:
        line: Where it begins.
        name: Such as RUN.
        flags: Such as ``--from=packages``, in order.
        text: The rest, as it stands.
    """

    line: int
    name: str
    flags: tuple[str, ...]
    text: str

    def flag(self, name: str) -> str | None:
        """Return a flag's value, or None where it is not given."""
        prefix = f"--{name}="
        return next((f.removeprefix(prefix) for f in self.flags if f.startswith(prefix)), None)


@dataclass(frozen=True)
class Stage:
    """What one FROM begins.

    Attributes:
        name: The name behind AS, or its number.
        base: An image, or the name of a stage above.
        steps: Its instructions in order.
    """

    name: str
    base: str
    steps: list[Step] = field(default_factory=list)


def parse(text: str) -> dict[str, Stage]:
    """Return the stages of a Dockerfile by name, in order.

    Raises:
        DockerfileError: If an instruction is not understood.
    """
    stages: dict[str, Stage] = {}
    for line, instruction in _instructions(text):
        name, _, rest = instruction.partition(" ")
        name = name.upper()
        if name == "FROM":
            found = _FROM.fullmatch(rest.strip())
            if found is None:
                raise DockerfileError(f"line {line}: cannot read 'FROM {rest.strip()}'")
            stage = Stage(found["name"] or str(len(stages)), found["base"])
            stages[stage.name] = stage
        elif name not in KNOWN:
            raise DockerfileError(f"line {line}: {name} is none of FROM, {', '.join(KNOWN)}")
        elif not stages:
            raise DockerfileError(f"line {line}: {name} comes before the first FROM")
        else:
            flags, rest = _split_flags(rest)
            stage.steps.append(Step(line, name, flags, rest))
    if not stages:
        raise DockerfileError("there is no FROM")
    return stages


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in, as ``$NAME`` or ``${NAME}``; unknown ones stay as they are."""
    return Template(text).safe_substitute(variables)


def read_pairs(text: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return what ``ENV`` or ``ARG`` sets, from ``NAME=value NAME="other value"``."""
    words = shlex.split(expand(text, variables))
    return dict(word.split("=", 1) for word in words if "=" in word)


def _instructions(text: str) -> Iterator[tuple[int, str]]:
    """Yield each instruction on one line, with the number of its first."""
    begun: list[str] = []
    first = 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        first = first if begun else number
        begun.append(stripped.removesuffix("\\").strip())
        if not stripped.endswith("\\"):
            yield first, " ".join(begun)
            begun = []
    if begun:
        raise DockerfileError(f"line {first}: the last line ends in a backslash")


def _split_flags(text: str) -> tuple[tuple[str, ...], str]:
    flags = []
    rest = text.strip()
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        flags.append(flag)
        rest = rest.strip()
    return tuple(flags), rest
