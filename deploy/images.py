"""Builds an image as a folder: the steps of a Dockerfile's stage, carried out one by one.

Each image is a layer on the one it begins with, by overlayfs; commands run in it with chroot.
`rehearse` calls this, as root and with mounts of its own.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dockerfile import Stage, expand, read_pairs

HERE = Path(__file__).resolve().parent
CONTEXT = HERE.parent
BASE_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
RESOLVER, CERTIFICATES = Path("etc/resolv.conf"), Path("etc/ssl/certs/ca-certificates.crt")
# Of this machine's pip settings, those that say where packages come from.
PIP_SETTINGS = ("cert", "default-timeout", "extra-index-url", "index-url", "proxy", "trusted-host")


def run(*command: str | Path) -> str:
    """Run a command; end the rehearsal with what it printed if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout[-4000:]}\nfailed: {shlex.join(map(str, command))}")
    return done.stdout


class Image:
    """A stage that is being built: layers on the fresh Debian, and what later steps start from.

    Args:
        folder: Where its own layer lies.
        below: The image it begins with; None is the fresh Debian in ``base``.
        base: That Debian's files.
    """

    def __init__(self, folder: Path, below: Image | None, base: Path) -> None:
        self.layers: list[Path] = [folder / "layer", *(below.layers if below else [base])]
        self.environment: dict[str, str] = dict(below.environment) if below else {}
        self.arguments: dict[str, str] = {}
        self.user: str = below.user if below else "root"
        self.workdir: str = below.workdir if below else "/"
        self.command: list[str] = below.command if below else []
        self.root = folder / "root"
        for part in ("layer", "work", "root"):
            (folder / part).mkdir(parents=True)
        lower = ":".join(map(str, self.layers[1:]))
        upper = f"upperdir={self.layers[0]},workdir={folder / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},{upper}", self.root)

    def chroot(self, command: list[str], environment: dict[str, str]) -> list[str]:
        """Return what runs a command inside, as the image's user, with processes of its own."""
        variables = {"PATH": BASE_PATH} | self.environment | environment
        return [
            *["unshare", "--pid", "--fork", "--kill-child", f"--mount-proc={self.root}/proc"],
            *["chroot", f"--userspec={self.user}:{self.user}", str(self.root)],
            *["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items())],
            *["sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *command],
        ]

    def installed_megabytes(self) -> float:
        """Return what its layers hold on top of the Debian it began with."""
        files = (path for layer in self.layers[:-1] for path in layer.rglob("*"))
        return sum(path.lstat().st_size for path in files if not path.is_dir()) / 1e6


def build(stage: Stage, images: dict[str, Image], folder: Path, base: Path) -> Image:
    """Carry out a stage's steps."""
    image = Image(folder / "stages" / stage.name, images.get(stage.base), base)
    for step in stage.steps:
        print(f"{stage.name:14} line {step.line:3}  {step.name} {step.text[:90]}", flush=True)
        variables = {"PATH": BASE_PATH} | image.arguments | image.environment
        if step.name == "ENV":
            image.environment |= read_pairs(step.text, variables)
        elif step.name == "ARG":
            image.arguments |= read_pairs(step.text, variables)
        elif step.name == "USER":
            image.user = expand(step.text, variables)
        elif step.name == "WORKDIR":
            image.workdir = str(Path(image.workdir) / expand(step.text, variables))
            (image.root / image.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step.name == "CMD":
            image.command = json.loads(step.text)
        elif step.name == "COPY":
            source = images[step.flag("from") or ""].root if step.flag("from") else None
            copy(shlex.split(expand(step.text, variables)), image, source, folder)
        elif step.name == "RUN":
            with borrowed_network(image.root), cache(step.flag("mount"), image.root, folder):
                run(*image.chroot(["sh", "-c", step.text], pip_settings() | image.arguments))
    return image


def copy(paths: list[str], image: Image, source: Path | None, folder: Path) -> None:
    """Carry out a COPY: from another image, or from what the build may see of this folder."""
    *names, target = paths
    goal = image.root / str(Path(image.workdir) / target).lstrip("/")
    for name in names:
        found = (source or seen_by_build(folder)) / name.lstrip("/")
        if not found.exists():
            raise SystemExit(f"COPY {name}: there is no such file for the build")
        place = goal / found.name if target.endswith("/") else goal
        place.parent.mkdir(parents=True, exist_ok=True)
        run("cp", "--archive", "--no-target-directory", found, place)


def seen_by_build(folder: Path) -> Path:
    """Return a copy of the repository without what ``Dockerfile.dockerignore`` keeps out."""
    context = folder / "stages" / "context"
    if not context.exists():
        context.mkdir(parents=True)
        lines = (HERE / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        for line in lines:
            if line.startswith("!"):
                place = context / line[1:]
                place.parent.mkdir(parents=True, exist_ok=True)
                run("cp", "--archive", CONTEXT / line[1:], place)
        hidden = [line for line in lines if line.startswith("**/")]
        for path in [path for pattern in hidden for path in context.glob(pattern)]:
            shutil.rmtree(path)
        # Files come from git, which keeps no owners: the build makes them root's.
        run("chown", "--recursive", "root:root", context)
    return context


@contextmanager
def borrowed_network(root: Path) -> Iterator[None]:
    """Let names be resolved and certificates be checked inside as they are outside."""
    (root / RESOLVER).touch()
    with (
        bound("/" / RESOLVER, root / RESOLVER),
        bound("/" / CERTIFICATES, root / CERTIFICATES),
    ):
        yield


@contextmanager
def cache(mount: str | None, root: Path, folder: Path) -> Iterator[None]:
    """Carry out ``--mount=type=cache``."""
    if mount is None:
        yield
        return
    settings = read_pairs(mount.replace(",", " "), {})
    if settings["type"] != "cache":
        raise SystemExit(f"RUN --mount={mount} is not understood")
    target = settings["target"].lstrip("/")
    kept = folder / "cache" / target
    kept.mkdir(parents=True, exist_ok=True)
    (root / target).mkdir(parents=True, exist_ok=True)
    with bound(kept, root / target):
        yield


@contextmanager
def bound(source: Path, target: Path) -> Iterator[None]:
    """Show a file or folder at another place, too."""
    run("mount", "--bind", source, target)
    try:
        yield
    finally:
        run("umount", target)


def pip_settings() -> dict[str, str]:
    """Return this machine's settings of where packages come from, as variables for pip."""
    lines = run(sys.executable, "-m", "pip", "config", "list").splitlines()
    settings = {}
    for line in lines:
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in PIP_SETTINGS:
            settings[f"PIP_{name.upper().replace('-', '_')}"] = value.strip("'\"")
    return settings
