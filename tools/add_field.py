"""Count the source files it takes to add a sampling parameter and a field of a joke.

    python tools/add_field.py

Each is added to a copy of the source, by the edits below and no others. Then programs that import
the copy look for it wherever people and programs meet it: the command line, HTTP, links, the
queue's records, the engine. Prints where it was found. The exit code is 1 where it is missing
somewhere, or took more files than it may. A place that keeps a list of fields of its own does not
find the new one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"


@dataclass(frozen=True)
class Edit:
    """Lines added to a file of the package, before a line that is there once."""

    file: str
    before: str
    lines: str


@dataclass(frozen=True)
class Addition:
    """A field that is added, and where it must be found afterwards.

    Attributes:
        name: The field.
        most_files: How many files that may take.
        edits: What it takes.
        probe: A program that prints, as a JSON object, the value or the mention in each place.
        expected: What it prints for a field that is there.
    """

    name: str
    most_files: int
    edits: tuple[Edit, ...]
    probe: str
    expected: dict[str, object]

    @property
    def files(self) -> set[str]:
        """The files that are edited."""
        return {edit.file for edit in self.edits}


_ASK = """
import json
import sys
from dataclasses import asdict
from types import SimpleNamespace
from fastapi.testclient import TestClient
from pydantic_core import to_json
from typer.testing import CliRunner
from joker.cli import app as command_line
from joker.core.model_folder import ModelFolder, bundled_model
from joker.engines import GenerationTask, open_batch
from joker.engines.engine import BatchedEngine, InThreadRunner
from joker.engines.openvino import OpenVinoBatch
from joker.engines.protocol import load_tokenizer
from joker.generation.teller import Teller
from joker.jobs.in_process import InProcessQueue
from joker.jobs.broker import parse_record
from joker.settings import Settings
from joker.store import Store
from joker.web import create_app

folder = ModelFolder.open(bundled_model())
batch = open_batch(folder, "stub")
tasks = []
add = batch.add
batch.add = lambda key, task: (tasks.append(task), add(key, task))
tokenizer = load_tokenizer(folder, folder.path)
teller = Teller(BatchedEngine(tokenizer, folder.manifest.context_length, InThreadRunner(batch)))

def ask(body):
    queue = InProcessQueue(teller.tell, workers=1)
    with TestClient(create_app(queue, Store("sqlite://"), Settings(pool_size=0))) as client:
        told = client.post("/generate", json=body, headers={"Prefer": "wait=30"}).json()
        if "task_id" not in told:
            sys.exit(told["detail"])
        events = client.get(f"/generate/{told['task_id']}/events").text
        (job,) = [entry.job for entry in queue._entries.values()]
        schemas = client.get("/openapi.json").json()
    return told, events, parse_record(to_json(job).decode()), schemas

def names(schemas, model):
    return schemas["components"]["schemas"][model]["properties"]
"""

SAMPLING = Addition(
    name="min_p",
    most_files=4,
    edits=(
        Edit(
            "core/joke.py",
            "    max_new_tokens: int = Field(",
            "    min_p: float = Field(\n"
            '        default=0.0, ge=0, lt=1, description="Smallest share of the likeliest."\n'
            "    )\n",
        ),
        Edit(
            "engines/openvino.py",
            "            config.top_p = task.sampling.top_p\n",
            "            config.min_p = task.sampling.min_p\n",
        ),
    ),
    probe=_ASK
    + """
told, events, job, schemas = ask({"n": 1, "candidates": 1, "min_p": 0.25})
query = schemas["paths"]["/joke"]["get"]["parameters"]
help_text = CliRunner().invoke(command_line, ["tell", "--help"]).stdout
self = SimpleNamespace(_end_id=0, _vocabulary_size=9)
config = OpenVinoBatch._sampling_config(self, next(t for t in tasks if type(t) is GenerationTask))
print(json.dumps({
    "joker tell": "--min-p" in help_text,
    "query of /joke": "min_p" in [one["name"] for one in query],
    "body of /generate": "min_p" in names(schemas, "JokeParameters"),
    "body of /v1/completions": "min_p" in names(schemas, "CompletionBody"),
    "record of a job": job.request.sampling.min_p,
    "engine": round(config.min_p, 3),
}))
""",
    expected={
        "joker tell": True,
        "query of /joke": True,
        "body of /generate": True,
        "body of /v1/completions": True,
        "record of a job": 0.25,
        "engine": 0.25,
    },
)

JOKE = Addition(
    name="words",
    most_files=2,
    edits=(
        Edit(
            "core/joke.py",
            "    original: bool | None = Field(",
            '    words: int = Field(default=0, description="Words of the answer.")\n',
        ),
        Edit(
            "generation/teller.py",
            "                    tokens=drafts[number][joke],",
            "                    words=len(joke.answer.split()),\n",
        ),
    ),
    probe=_ASK
    + """
told, events, job, schemas = ask({"n": 1, "candidates": 1})
(joke,) = told["result"]
count = len(joke["answer"].split())
event = next(line for line in events.split("event: joke\\n")[1].splitlines() if "data:" in line)
arguments = ["tell", "--engine", "stub", "--candidates", "1", "--json"]
shown = json.loads(CliRunner().invoke(command_line, arguments).stdout)[0]
print(json.dumps({
    "joker tell --json": shown["words"] == len(shown["answer"].split()),
    "answer of /generate": joke["words"] == count,
    "schema of the answer": "words" in names(schemas, "LinkedJoke"),
    "event of a joke": json.loads(event.removeprefix("data:"))["words"] == count,
    "record of a job": job.jokes[0].words == count,
}))
""",
    expected={
        "joker tell --json": True,
        "answer of /generate": True,
        "schema of the answer": True,
        "event of a joke": True,
        "record of a job": True,
    },
)


def find(addition: Addition, folder: Path, *, added: bool = True) -> dict[str, object] | str:
    """Return what a copy of the source shows of a field, or its last line of complaint.

    Args:
        addition: The field.
        folder: An empty folder for the copy.
        added: Whether it is added to the copy.
    """
    copy = folder / "joker"
    shutil.copytree(SOURCE / "joker", copy, ignore=shutil.ignore_patterns("models", "__pycache__"))
    (copy / "models").symlink_to(SOURCE / "joker" / "models")
    for edit in addition.edits if added else ():
        path = copy / edit.file
        text = path.read_text(encoding="utf-8")
        if text.count(edit.before) != 1:
            return f"{edit.before.strip()!r} does not stand in {edit.file} once"
        path.write_text(text.replace(edit.before, edit.lines + edit.before), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name[:6] != "JOKER_"}
    done = subprocess.run(
        [sys.executable, "-c", addition.probe],
        env=environment | {"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Add each and print what came of it."""
    code = 0
    for addition in (SAMPLING, JOKE):
        with tempfile.TemporaryDirectory() as folder:
            found = find(addition, Path(folder))
        well = found == addition.expected and len(addition.files) <= addition.most_files
        files = ", ".join(sorted(addition.files))
        print(
            f"{'ok  ' if well else 'FAIL'} {addition.name}: {len(addition.files)} files ({files})"
        )
        print(f"     {found}")
        code |= not well
    return code


if __name__ == "__main__":
    sys.exit(main())
