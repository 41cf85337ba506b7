"""Rehearses the Dockerfile without a container engine, as root on Linux: `make dockerfiles`.

Every stage is a file system of its own: a fresh Debian stands in for the images of Docker Hub,
and each step of the Dockerfile, read from the file itself, is carried out in it with chroot. Then
the images' commands run as the Compose file runs them (its user, read-only file systems, tmpfs,
secrets and environment) beside a Redis, and must tell a joke. Two things differ from a
container: the network is this machine's, and NGINX Unit, which no Debian package holds, is
stood in for by uvicorn, which opens the application that ``unit.json`` names.

`debootstrap` and `redis-server` must be installed; mounts are private and end with the process.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from dockerfile import Stage, parse
from images import HERE, Image, build, run

SUITE = "trixie"
PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
PORT = 8080
REDIS_PORT = 6399
START_SECONDS = 120
# What the images of Docker Hub hold beside Debian.
PREPARE = """
for name in python3 pip3; do ln -sf /usr/bin/$name /usr/local/bin/$name; done
groupadd --gid 999 unit && useradd --uid 999 --gid unit --no-create-home --home /nonexistent unit
mkdir -p /docker-entrypoint.d /var/lib/unit
"""


def main() -> None:
    """Build the targets and tell a joke with them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where file systems are made; 3 GB")
    parser.add_argument("--target", action="append", help="build only these and start nothing")
    options = parser.parse_args()
    if os.environ.get("REHEARSAL") != "inside":
        # Mounts that are made from here on are nobody else's and end with this process.
        os.environ["REHEARSAL"] = "inside"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    base = make_base(folder / "base")
    shutil.rmtree(folder / "stages", ignore_errors=True)
    stages = parse((HERE / "Dockerfile").read_text(encoding="utf-8"))
    images: dict[str, Image] = {}
    targets = options.target or ["web", "web-maintained", "worker"]
    for name in needed(stages, targets):
        images[name] = build(stages[name], images, folder, base)
    for target in targets:
        print(f"{target}: {images[target].installed_megabytes():.0f} MB on top of its base image")
    if not options.target:
        perform(images, folder)


def make_base(base: Path) -> Path:
    """Return a fresh Debian with Python, made once."""
    if not (base / "prepared").exists():
        print(f"making a fresh Debian ({SUITE})", flush=True)
        shutil.rmtree(base, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, base)
        run("chroot", base, "sh", "-ec", PREPARE)
        (base / "prepared").touch()
    return base


def needed(stages: dict[str, Stage], targets: list[str]) -> list[str]:
    """Return the stages that targets are made of, in the file's order."""
    wanted = set(targets)
    for name, stage in reversed(stages.items()):
        if name in wanted:
            wanted |= {stage.base, *(step.flag("from") or "" for step in stage.steps)}
    return [name for name in stages if name in wanted]


def perform(images: dict[str, Image], folder: Path) -> None:
    """Run each web server beside a worker and a Redis, and have a joke told."""
    compose = yaml.safe_load((HERE / "docker-compose.yml").read_text(encoding="utf-8"))
    secret = folder / "secret"
    secret.write_text("a password of the rehearsal", encoding="utf-8")
    secret.chmod(0o444)
    data = folder / "redis"
    data.mkdir(exist_ok=True)
    unit = json.loads((HERE / "unit.json").read_text(encoding="utf-8"))
    application = unit["applications"]["joker"]
    by_unit = [
        *[f"{application['home']}/bin/python3", "-m", "uvicorn", "--factory"],
        *[f"{application['module']}:{application['callable']}", "--host=0.0.0.0"],
        *[f"--port={PORT}", f"--workers={application['processes']}"],
    ]
    redis = ["redis-server", str(HERE / "kubernetes" / "redis.conf"), "--dir", str(data)]
    redis += ["--port", str(REDIS_PORT), "--requirepass", secret.read_text(encoding="utf-8")]
    with started("redis", redis, folder):
        worker = contained(images["worker"], compose["services"]["worker"], secret)
        with started("worker", worker, folder):
            for target, command in (("web-maintained", None), ("web", by_unit)):
                server = contained(images[target], compose["services"]["web"], secret, command)
                with started(target, server, folder):
                    wait_for(f"http://127.0.0.1:{PORT}/health/ready", folder / f"{target}.log")
                    joke = fetch(f"http://127.0.0.1:{PORT}/joke")
                    for path in ("/", "/docs", "/metrics"):
                        fetch(f"http://127.0.0.1:{PORT}{path}")
                    print(f"{target} tells: {' '.join(joke.split())}")


def contained(
    image: Image, service: dict[str, Any], secret: Path, command: list[str] | None = None
) -> list[str]:
    """Return what starts an image as a service of the Compose file is started."""
    root = image.root
    prepare = [f"mount -o remount,bind,ro {root}"]
    for entry in service["tmpfs"]:
        place, _, options = entry.partition(":")
        (root / place[1:]).mkdir(parents=True, exist_ok=True)
        prepare.append(f"mount -t tmpfs -o {options} tmpfs {root}{place}")
    secrets = root / "run/secrets"
    secrets.mkdir(parents=True, exist_ok=True)
    prepare.append(f"mkdir -p {secrets}; mount -t tmpfs tmpfs {secrets}")
    prepare.append(f"cp --preserve=mode {secret} {secrets}/joker_broker_password")
    settings = {
        name: value
        for name, value in service["environment"].items()
        if name.startswith("JOKER_") and "$" not in value
    }
    settings["JOKER_BROKER"] = f"redis://127.0.0.1:{REDIS_PORT}/0"
    inner = shlex.join(image.chroot(command or image.command, settings))
    return ["unshare", "--mount", "sh", "-ec", "\n".join([*prepare, f"exec {inner}"])]


@contextmanager
def started(name: str, command: list[str], folder: Path) -> Iterator[None]:
    """Run a process within the context; then stop it as `docker stop` does, and say how it went."""
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
        if process.poll() is not None:
            raise SystemExit(f"{name} ended by itself; see {folder / name}.log")
    finally:
        stop(name, process)


def stop(name: str, process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to what runs inside, wait, and print the exit code."""
    innermost = process.pid
    while children := run("sh", "-c", f"cat /proc/{innermost}/task/*/children").split():
        if Path(f"/proc/{innermost}/comm").read_text().strip() not in ("unshare", "sh"):
            break
        innermost = int(children[0])
    os.kill(innermost, signal.SIGTERM)
    began = time.monotonic()
    process.wait(90)
    print(f"{name} stopped in {time.monotonic() - began:.1f} s, exit code {process.returncode}")


def wait_for(address: str, log: Path) -> None:
    """Wait until an address answers 200."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            fetch(address)
            return
        except OSError as error:
            if time.monotonic() > until:
                raise SystemExit(f"{address}: {error}\n{log.read_text()[-4000:]}") from error
            time.sleep(0.5)


def fetch(address: str) -> str:
    """Return what an address answers."""
    with urllib.request.urlopen(address, timeout=30) as answer:
        text: str = answer.read().decode()
        return text


if __name__ == "__main__":
    main()
