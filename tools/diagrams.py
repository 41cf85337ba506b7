"""Draw the figures of the documentation into docs/images; ``make docs`` keeps them.

Bars are drawn from the tables of the pages, so a figure cannot contradict the text; the
timeline comes from a schedule computed here. Each figure has its own background in a light
and a dark shade, so it is legible on any page.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 720
STYLE = """\
<style>
  text { font: 14px system-ui, sans-serif; fill: #222 } .title { font-weight: 600 }
  .card { fill: #f7f7f9; stroke: #d5d5dc } .bar { fill: #3f6fb5 } .bar.even { fill: #c9702b }
  .note { fill: #555 } .axis { stroke: #888 } .inside { fill: #fff; text-anchor: middle }
  @media (prefers-color-scheme: dark) {
    text { fill: #eee } .card { fill: #24262d; stroke: #444 } .note { fill: #bbb }
  }
</style>"""


def figures() -> dict[str, str]:
    """Return every figure by its file's name."""
    templates = _table("experiments-log.md", "template | bits per byte | answer bits per byte")
    split = _table("data.md", "random | clusters")
    shares = [re.sub(r".*\((.*)%\)", r"\1", cell) for cell in split[-1][1:]]
    return {
        "templates.svg": _bars(
            [row[0] for row in templates],
            {
                "bits per byte: nearly the same": [row[1].strip("*") for row in templates],
                "perplexity per token: “2.3 times better”": [row[4] for row in templates],
            },
        ),
        "clusters.svg": _bars(
            ["split at random", "split by cluster"],
            {"% of test jokes with a near-duplicate in training": shares},
        ),
        "batching.svg": _timeline([3, 11, 6, 8, 4, 9, 5, 7], slots=3),
    }


def _table(page: str, head: str) -> list[list[str]]:
    """Return the rows of the table whose head holds some words, each a list of cells."""
    text = (DOCS / page).read_text(encoding="utf-8")
    lines = text[text.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _bars(labels: Sequence[str], panels: dict[str, list[str]]) -> str:
    """Draw one panel of horizontal bars for each list of numbers, each from zero."""
    body, top = [], 20
    for title, numbers in panels.items():
        top += 20
        body.append(f'<text class="title" x="20" y="{top}">{escape(title)}</text>')
        longest = max(map(float, numbers))
        for row, (label, number) in enumerate(zip(labels, numbers, strict=True)):
            y, width = top + 14 + 30 * row, 400 * float(number) / longest
            body += [
                f'<text x="20" y="{y + 16}">{escape(label)}</text>',
                f'<rect class="bar" x="230" y="{y}" width="{width:.0f}" height="22" rx="3"/>',
                f'<text class="note" x="{238 + width:.0f}" y="{y + 16}">{number}</text>',
            ]
        top += 14 + 30 * len(labels)
    return _card(top + 20, body)


def _timeline(lengths: Sequence[int], slots: int) -> str:
    """Draw the same requests in batches that wait for their longest, and in a running batch."""
    body, top = [], 40
    for title, spans in (
        ("Fixed batches, each waiting for its longest joke", [*_in_batches(lengths, slots)]),
        ("Continuous batching, slots freed at once", [*_continuously(lengths, slots)]),
    ):
        end = max(start + lengths[request] for request, _, start in spans)
        body.append(f'<text class="title" x="20" y="{top}">{title}: {end} steps</text>')
        for request, slot, start in spans:
            x, y, width = 20 + 24 * start, top + 12 + 32 * slot, 24 * lengths[request] - 2
            kind = "bar even" if request % 2 else "bar"
            body += [
                f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="26" rx="3"/>',
                f'<text class="inside" x="{x + width / 2:.0f}" y="{y + 18}">{request + 1}</text>',
            ]
        x, bottom = 20 + 24 * end, top + 12 + 32 * slots
        body.append(f'<line class="axis" x1="{x}" y1="{top + 8}" x2="{x}" y2="{bottom}"/>')
        top = bottom + 36
    return _card(top - 16, body)


Span = tuple[int, int, int]
"""A request, its place in the batch, and the step at which it begins."""


def _in_batches(lengths: Sequence[int], slots: int) -> Iterator[Span]:
    start = 0
    for first in range(0, len(lengths), slots):
        batch = range(first, min(first + slots, len(lengths)))
        yield from ((request, request - first, start) for request in batch)
        start += max(lengths[request] for request in batch)


def _continuously(lengths: Sequence[int], slots: int) -> Iterator[Span]:
    free = [(0, slot) for slot in range(slots)]
    for request, length in enumerate(lengths):
        start, slot = heapq.heappop(free)
        yield request, slot, start
        heapq.heappush(free, (start + length, slot))


def _card(height: int, body: Sequence[str]) -> str:
    box = f'viewBox="0 0 {WIDTH} {height}"'
    card = f'<rect class="card" x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="8"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">'
    return "\n".join([head, STYLE, card, *body, "</svg>", ""])


if __name__ == "__main__":
    for name, drawing in figures().items():
        (DOCS / "images" / name).write_text(drawing, encoding="utf-8")
