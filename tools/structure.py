"""Print how large the source is and how it is laid out; ``make structure`` runs it.

Prints lines and modules, the longest function, class names that occur twice, small modules with
one importer, and the share of docstrings.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[1] / "src" / "joker"
SMALL = 60
"""Lines below which a module with a single importer should belong to it."""


class Function(NamedTuple):
    """A function and its length in lines."""

    lines: int
    name: str


def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of every module by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ("joker", *path.relative_to(SOURCE).with_suffix("").parts)
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def line_counts() -> dict[str, int]:
    """Return the number of lines of every file of source."""
    return {
        str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sorted(SOURCE.rglob("*.py"))
    }


def repeated_class_names(modules: dict[str, ast.Module]) -> list[str]:
    """Return the names that more than one class has."""
    names = Counter(
        node.name
        for tree in modules.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    return sorted(name for name, count in names.items() if count > 1)


def functions(modules: dict[str, ast.Module]) -> Iterator[Function]:
    """Yield every function with its length, decorators and docstring included."""
    for module, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                end = node.end_lineno or node.lineno
                yield Function(end - node.lineno + 1, f"{module}.{node.name}")


def importers(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return for every module those that import it or a name from it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for module, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found[inner if inner in modules else node.module].add(module)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    found[alias.name].add(module)
    return found


def docstring_lines(modules: dict[str, ast.Module]) -> int:
    """Return how many lines docstrings take."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return sum(
        len(text.splitlines())
        for tree in modules.values()
        for node in ast.walk(tree)
        if isinstance(node, kinds) and (text := ast.get_docstring(node, clean=False))
    )


def main() -> None:
    """Print all counts."""
    modules, lines = trees(), line_counts()
    total = sum(lines.values())
    by_package: Counter[str] = Counter(name.split("/")[0] for name in lines if "/" in name)
    used_by = importers(modules)
    markers = [name for name, tree in modules.items() if len(tree.body) < 2]
    migrations = [name for name in modules if ".migrations." in name]
    small = [
        name
        for name, count in lines.items()
        if count < SMALL
        and not name.endswith("__init__.py")
        and len(used_by["joker." + name.removesuffix(".py").replace("/", ".")]) == 1
    ]
    print(f"lines      {total:,}, of which docstrings {docstring_lines(modules) / total:.0%}")
    print(f"modules    {len(lines)}: {', '.join(f'{k} {v}' for k, v in by_package.items())}")
    print(
        f"           of them empty packages {len(markers)}, database migrations {len(migrations)}"
    )
    print("longest    " + ", ".join(f"{f.name} {f.lines}" for f in sorted(functions(modules))[-3:]))
    print(f"class names that occur twice   {repeated_class_names(modules) or 'none'}")
    print(f"small modules with one importer   {', '.join(small) or 'none'}")


if __name__ == "__main__":
    main()
