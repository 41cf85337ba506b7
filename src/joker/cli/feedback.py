"""``joker feedback``: export and compare votes, and review reported jokes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.table import Column, Table

from joker.cli.options import examples, with_settings
from joker.core.errors import DataError, InputError, UnknownJokeError, plural
from joker.settings import load_settings

if TYPE_CHECKING:
    from joker.store import Store
    from joker.store.votes import Feedback

app = typer.Typer(
    help="Use votes to train and compare models, and review reported jokes.",
    epilog=examples("joker feedback export --out votes.csv", "joker feedback reported"),
    no_args_is_help=True,
)


@app.command(epilog=examples("joker feedback export --out votes.csv --min-votes 3"))
@with_settings("database")
def export(
    options: dict[str, Any],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="CSV or JSONL file to write, replaced if it exists (default: print CSV)."
        ),
    ] = None,
    min_votes: Annotated[
        int,
        typer.Option(
            "--min-votes",
            min=1,
            help="Minimum number of 👍 and 👎 for a joke to count; 1 if you rate alone.",
        ),
    ] = 2,
) -> None:
    """Export jokes with votes as rated jokes for 'joker train --preferences'.

    A majority of 👍 scores 2, or 3 if it is statistically certain; a majority of 👎 scores 1 or 0.
    Reported jokes score 0; ties are left out.
    """
    from joker.store.votes import read_feedback, write_csv, write_jsonl

    if out is not None and out.suffix.lower() not in (".csv", ".jsonl"):
        raise DataError(f"--out must end in .csv or .jsonl, unlike {out}")
    with _open_store(options) as store:
        rows = read_feedback(store, min_votes)
        if out is None:
            count = write_csv(rows, sys.stdout)
        else:
            write = write_csv if out.suffix.lower() == ".csv" else write_jsonl
            count = _write_atomically(out, rows, write)
    if not count:
        raise DataError(
            f"no joke in {store} has {min_votes} {plural(min_votes, 'vote')} with a majority; "
            "collect more votes"
            + (", or give --min-votes 1 if you rate alone" if min_votes > 1 else "")
        )
    if out is not None:
        typer.echo(f"{count} {plural(count, 'joke')} written to {out}", err=True)


@app.command(epilog=examples("joker feedback compare --database sqlite:///jokes.sqlite"))
@with_settings("database")
def compare(options: dict[str, Any]) -> None:
    """Compare models by the votes on their jokes.

    "liked" is the share of 👍 among all votes. Its interval comes from resampling jokes, because
    many votes on few jokes say little about the model. Jokes that readers picked are in a separate
    row: they are better than the model's average.
    """
    from joker.store.votes import compare_models

    with _open_store(options) as store:
        approvals = compare_models(store)
        if not approvals:
            raise DataError(f"no joke in {store} has votes; collect some first")
    table = Table(
        Column("model", no_wrap=True), "jokes", "👍", "👎", "reports", "liked", "95% interval"
    )
    for approval in approvals:
        votes, (low, high) = approval.votes, approval.interval
        table.add_row(
            f"{approval.model}, picked by readers" if approval.picked else approval.model,
            *map(str, (approval.jokes, votes.up, votes.down, votes.report)),
            *(f"{approval.liked:.1%}", f"{low:.1%}–{high:.1%}"),
        )
    Console(highlight=False, markup=False).print(table)


@app.command(epilog=examples("joker feedback reported --database sqlite:///jokes.sqlite"))
@with_settings("database")
def reported(options: dict[str, Any]) -> None:
    """List the reported jokes, the latest report first; nobody else sees them.

    'joker feedback restore' brings back those that were reported without reason.
    """
    with _open_store(options) as store:
        reports = store.reported()
        if not reports:
            typer.echo(f"no joke in {store} has been reported", err=True)
            return
    table = Table(
        Column("id", no_wrap=True), "joke", Column("last report (UTC)", min_width=16), "reports"
    )
    for joke, reported_at in reports:
        table.add_row(
            joke.id,
            " ".join(f"{joke.question} {joke.answer}".split()),
            f"{datetime.fromtimestamp(reported_at, UTC):%Y-%m-%d %H:%M}",
            str(joke.votes.report),
        )
    Console(highlight=False, markup=False).print(table)


@app.command(
    epilog=examples(
        "joker feedback restore nTqMPqsyIjKe", "joker feedback restore --since 2026-11-30T20:00"
    )
)
@with_settings("database")
def restore(
    options: dict[str, Any],
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids from 'joker feedback reported'.", metavar="ID...", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete all reports.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Delete the reports made since a date or time (UTC), such as 2026-11-30 or "
            "2026-11-30T20:00; earlier ones stay.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Bring back jokes that were reported without reason.

    Their reports are deleted, other votes stay. The jokes are again at their links, in the lists
    and in the pool.
    """
    if bool(ids) + everything + (since is not None) != 1:
        raise InputError("name the ids of jokes, or give either --all or --since")
    since_seconds = _read_time(since) if since is not None else 0.0
    with _open_store(options) as store:
        if not ids:
            count = store.restore_all(since_seconds)
            typer.echo(f"{count} {plural(count, 'joke')} shown again")
            return
        for joke_id in ids:
            _check_known(store, joke_id)
        for joke_id in ids:
            done = "is shown again" if store.restore(joke_id) else "was not reported"
            typer.echo(f"{joke_id} {done}")


def _open_store(options: dict[str, Any]) -> closing[Store]:
    from joker.compose import open_store

    return closing(open_store(load_settings(**options)))


def _read_time(text: str) -> float:
    """Return a date or time, in UTC unless it has an offset, as seconds since 1970."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            "--since must be a date or time (UTC) such as 2026-11-30 or 2026-11-30T20:00, "
            f"not {text[:30]!r}"
        ) from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _check_known(store: Store, joke_id: str) -> None:
    try:
        store.get(joke_id)
    except UnknownJokeError as error:
        raise UnknownJokeError(
            f"there is no joke {joke_id[:20]!r} in {store}; "
            "'joker feedback reported' lists the ids of reported jokes"
        ) from error


def _write_atomically(
    out: Path, rows: Iterator[Feedback], write: Callable[[Iterator[Feedback], TextIO], int]
) -> int:
    """Write all rows or nothing, and return their number; without rows the old file stays."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
            temporary = Path(folder) / out.name
            with temporary.open("w", encoding="utf-8", newline="") as file:
                count = write(rows, file)
            if count:
                temporary.replace(out)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}") from error
    return count
