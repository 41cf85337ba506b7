"""Install a wheel into an empty environment and let it tell a joke, as a stranger would.

``make wheel-check`` calls it with the wheel it has built. Everything happens in a temporary
folder outside the checkout, so what the wheel lacks cannot be found beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path


def check(wheel: Path, constraints: Path) -> None:
    """Install, tell a joke, serve one.

    Raises:
        subprocess.CalledProcessError: If a command fails.
        AssertionError: If what it says is no joke.
    """
    with tempfile.TemporaryDirectory() as folder:
        programs = Path(folder) / "venv/bin"
        venv.create(programs.parent, with_pip=True)
        flags = ["--quiet", "--disable-pip-version-check", "--constraint", str(constraints)]
        _run([programs / "pip", "install", *flags, wheel], folder)
        told = json.loads(_run([programs / "joker", "tell", "--fresh", "--json"], folder))
        assert told[0]["question"], told
        assert told[0]["answer"], told
        print(f"told:   {told[0]['question']} {told[0]['answer']}")
        print(f"served: {_serve([programs / 'joker', 'serve', '--port', '0'], folder)}")
        print(f"installed: {_size(programs.parent)} MB")


def _run(command: list[str | Path], folder: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=_environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def _serve(command: list[str | Path], folder: str) -> str:
    with subprocess.Popen(
        command, cwd=folder, env=_environment(), stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            said = server.stderr.readline()
            assert said.startswith("Open "), said
            with urllib.request.urlopen(f"{said.split()[1]}/joke?seed=1", timeout=120) as answer:
                joke: str = answer.read().decode()
        finally:
            server.terminate()
    assert len(joke.split()) > 2, joke
    return " ".join(joke.split())


def _environment() -> dict[str, str]:
    """Return the environment without anything that leads back to a checkout or its settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "JOKER_", "VIRTUAL_ENV"))
    }


def _size(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return round(sum(path.stat().st_size for path in files) / 1e6)


if __name__ == "__main__":
    check(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
