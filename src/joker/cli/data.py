"""``joker data``: download, prepare and inspect jokes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from joker.cli.options import examples
from joker.data.prepared import DataManifest, PreparedData, SplitKind

if TYPE_CHECKING:
    from joker.data.statistics import Statistics

app = typer.Typer(
    help="Download, prepare and inspect jokes.",
    epilog=examples("joker data prepare --jokes my-jokes.csv --out prepared"),
    no_args_is_help=True,
)


@app.command(
    epilog=examples(
        "joker data prepare --jokes my-jokes.csv --out prepared",
        "joker data prepare --qa-jokes data/jokes.csv "
        "--rjokes data/jokes_score_name_clean.csv --out prepared",
    )
)
def prepare(
    out: Annotated[Path, typer.Option("--out", help="Prepared folder to create.")],
    qa_jokes: Annotated[
        Path | None, typer.Option("--qa-jokes", help="jokes.csv of Kaggle's jiriroz/qa-jokes.")
    ] = None,
    rjokes: Annotated[
        Path | None,
        typer.Option(
            "--rjokes", help="jokes_score_name_clean.csv of Kaggle's cuddlefish/reddit-rjokes."
        ),
    ] = None,
    jokes: Annotated[
        list[Path] | None,
        typer.Option("--jokes", help="Your own jokes, .csv or .jsonl; repeatable."),
    ] = None,
    question_column: Annotated[
        str, typer.Option("--question-column", help="Column of --jokes with the questions.")
    ] = "question",
    answer_column: Annotated[
        str, typer.Option("--answer-column", help="Column of --jokes with the answers.")
    ] = "answer",
    split: Annotated[
        SplitKind,
        typer.Option(
            "--split",
            help="Put whole clusters of near-duplicates into the test set, or draw single jokes at "
            "random and keep duplicates, like the original.",
        ),
    ] = "clusters",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the split.")] = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing prepared folder at --out.")
    ] = False,
) -> None:
    """Clean, parse, cluster and split jokes into a prepared folder."""
    from joker.data import preparation
    from joker.data.sources import Source

    sources = [
        *([Source.qa_jokes(qa_jokes)] if qa_jokes else []),
        *([Source.rjokes(rjokes)] if rjokes else []),
        *(Source.custom(path, question_column, answer_column) for path in jokes or []),
    ]
    with Console(stderr=True).status("reading") as status:
        manifest = preparation.prepare(
            sources, out, split=split, seed=seed, force=force, report=status.update
        )
    _print(_manifest_tables(manifest))


@app.command(epilog=examples("joker data download --out data"))
def download(
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path("data"),
) -> None:
    """Download the two public data sets of jokes from Kaggle, without a login."""
    from joker.data.sources import DATASETS
    from joker.data.sources import download as download_file

    for dataset in DATASETS:
        typer.echo(download_file(dataset, out))


@app.command(epilog=examples("joker data show prepared --plot jokes.png"))
def show(
    folder: Annotated[Path, typer.Argument(help="Prepared folder.")],
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="PNG file to plot to; by default FOLDER/statistics.png."),
    ] = None,
) -> None:
    """Print and plot the contents of a prepared folder, and what was left out and why."""
    from joker.data.statistics import describe
    from joker.data.statistics import plot as draw

    data = PreparedData.open(folder)
    statistics = describe(data)
    _print([*_manifest_tables(data.manifest), *_statistics_tables(statistics)])
    target = plot or folder / "statistics.png"
    draw(statistics, data.manifest, target)
    typer.echo(f"plot: {target}")


def _print(tables: Iterable[Table]) -> None:
    console = Console(highlight=False, markup=False)
    for table in tables:
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    """Return an empty table whose first column is text and the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _manifest_tables(manifest: DataManifest) -> Iterable[Table]:
    table = _table("Rows", "source", "read", "kept", "plain", "dropped")
    for name, source in manifest.sources.items():
        plain, dropped = sum(source.plain.values()), sum(source.dropped.values())
        table.add_row(name, *(f"{n:,}" for n in (source.read, source.kept, plain, dropped)))
    yield table

    names = list(manifest.sources)
    table = _table("Plain, dropped and changed rows", "reason", *names)
    for outcome in ("plain", "dropped", "changed"):
        counts = {name: getattr(manifest.sources[name], outcome) for name in names}
        for reason in dict.fromkeys(reason for name in names for reason in counts[name]):
            table.add_row(
                f"{outcome}: {reason}", *(f"{counts[name].get(reason, 0):,}" for name in names)
            )
        table.add_section()
    yield table

    table = _table(
        f"Split with seed {manifest.seed}", "split", "train", "test", "copied in training"
    )
    for kind, leak in manifest.leak.items():
        table.add_row(
            f"{kind} (this folder)" if kind == manifest.split else kind,
            f"{leak.train:,}",
            f"{leak.test:,}",
            f"{leak.copied:,} = {_share(leak.copied, leak.test)}",
        )
    yield table

    if manifest.overlap:
        table = _table(
            "Overlap of sources", "questions of", "also in", "questions", "equal", "near"
        )
        for entry in manifest.overlap:
            table.add_row(
                entry.source,
                entry.other,
                f"{entry.questions:,}",
                _share(entry.exact, entry.questions),
                _share(entry.near, entry.questions),
            )
        yield table


def _statistics_tables(statistics: Statistics) -> Iterable[Table]:
    from joker.data.statistics import QUANTILES, quantiles

    table = _table("Jokes", "source", "train", "test")
    for name in dict.fromkeys(name for name, _ in statistics.sizes):
        table.add_row(
            name, *(f"{statistics.sizes.get((name, split), 0):,}" for split in ("train", "test"))
        )
    yield table

    table = _table("Lengths and scores", "quantile", *(f"{share:.0%}" for share in QUANTILES))
    for name, values in {
        "characters of question": statistics.question_lengths,
        "characters of answer": statistics.answer_lengths,
        **{f"score in {source}": scores for source, scores in statistics.scores.items()},
    }.items():
        table.add_row(name, *(f"{value:,}" for value in quantiles(values)))
    yield table

    if statistics.largest:
        table = _table("Largest clusters of near-duplicates", "first joke", "jokes")
        for joke, size in statistics.largest:
            table.add_row(f"{joke.question} {joke.answer}", f"{size:,}")
        yield table


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"
