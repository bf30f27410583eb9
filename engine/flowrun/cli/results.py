"""``flowrun results``: counts the records of a batch, selects some, shows one, and makes a page of them."""

import os
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import click
from rich.table import Table
from rich.text import Text

from flowrun.cli.report import colours_wanted
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, rich_console, write_json, write_report
from flowrun.errors import UsageError
from flowrun.files import file_errors, replaced_private

if TYPE_CHECKING:
    from flowrun.records import Entry, RecordFiles, Tally

SHOWN: Final = 20

_LEAST, _MOST = 15, 60
"""Characters of an output in the table."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--where", metavar="EXPR", help="Only records for which this is true, such as \"status == 'failed'\".")
@click.option("--row", metavar="ID|NUMBER", help="Show one row's record, with its messages.")
@click.option("--sample", type=click.IntRange(1), metavar="N", help="Only this sample of the rows.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT",
    help="Write one self-contained page, to search, filter and sort.",
)
@click.option("--json", is_flag=True, help="Print the records, a JSON object a line.")
@click.option("--limit", type=click.IntRange(0), default=SHOWN, show_default=True, help="The rows of the table.")
@click.option("--full", is_flag=True, help="Cut no text of a row short.")
def command(
    file: Path,
    where: str | None,
    row: str | None,
    sample: int | None,
    html: Path | None,
    json: bool,
    limit: int,
    full: bool,
) -> int:
    """Count the results of a batch by status and error, and list them.

    FILE is a result file of `flowrun batch`, or the folder of a batch on Ray.
    """
    from flowrun.records import RecordFiles, Selection

    if html is not None and json:
        raise UsageError("--html and --json: choose one of them")
    files = RecordFiles(file)
    entries = Selection(where=where, row=row, sample=sample).select(files)
    with answer_stream() as answers:
        if row is not None:
            entries = _require(entries, row, sample)
        if html is not None:
            _write_page(html, files, entries)
        elif json:
            for entry in entries:
                write_json(answers, entry.raw.decode().rstrip("\r\n"))
        elif row is not None:
            _show_one(answers, entries, full=full)
        else:
            _show_table(answers, files, entries, limit)
    _say_unread(files)
    return 0


def _require(entries: "Iterator[Entry]", row: str, sample: int | None) -> "Iterator[Entry]":
    """Return the records of a row, of which there must be one."""
    first = next(entries, None)
    if first is None:
        what = f"{row!r}" if sample is None else f"{row!r} and the sample {sample}"
        raise UsageError(f"no record has the id or the row number {what}, or it is not selected")
    return chain([first], entries)


def _write_page(html: Path, files: "RecordFiles", entries: "Iterator[Entry]") -> None:
    from flowrun.records import Tally, render_table_page

    if html.exists() and (not html.is_file() or any(html.samefile(file) for file in files.files)):
        raise UsageError(f"--html {html}: this is no place for a page: name another file")
    tally = Tally()
    pieces = render_table_page(files.path.name or str(files.path), tally.counted(entries))
    with file_errors(f"--html {html}"):
        with replaced_private(html) as file:
            file.writelines(pieces)
        size = html.stat().st_size
    echo(f"{html} shows {tally.count:,} records ({size / 1e6:,.1f} MB)", err=True)


def _show_one(answers: TextIO, entries: "Iterator[Entry]", *, full: bool) -> None:
    from flowrun.records import render_record

    coloured = colours_wanted(answers, environ=os.environ)
    width = shutil.get_terminal_size((100, 24)).columns
    lines = render_record(next(entries).record, coloured=coloured, width=width, full=full)
    write_report(answers, "".join(f"{line.rstrip()}\n" for line in lines), coloured=coloured)
    if others := sorted(entry.record.sample or 1 for entry in entries):
        echo(f"the row has other records: --sample {', '.join(map(str, others))}", err=True)


def _show_table(answers: TextIO, files: "RecordFiles", entries: "Iterator[Entry]", limit: int) -> None:
    from flowrun.records import Tally

    tally, shown = Tally(), list["Entry"]()
    for entry in tally.counted(entries):
        if len(shown) < limit:
            shown.append(entry)
    console = rich_console(file=answers)
    console.print(_counts_of(tally))
    if figures := _figures_of(tally):
        console.print(figures, style="dim", soft_wrap=True, markup=False)
    if shown:
        console.print()
        console.print(_table_of(shown, list(tally.scores), console.width))
    if len(shown) < tally.count:
        more = f"{len(shown)} of {tally.count:,} records are shown"
        echo(f"{more}: --limit N shows more, --html OUT all on a page, --json prints them", err=True)


def _counts_of(tally: "Tally") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("records", justify="right")
    table.add_column("status")
    table.add_column("error")
    for status, error, count in tally.sorted_outcomes():
        style = {"succeeded": "green", "failed": "red", "cancelled": "red"}.get(status, "yellow")
        table.add_row(f"{count:,}", Text(status), Text(error), style=style)
    table.add_row(f"{tally.count:,}", Text("in all"), "", style="bold")
    return table


def _figures_of(tally: "Tally") -> str:
    parts = [f"{name}: mean {total / count:.3g} of {count:,}" for name, (count, total) in tally.scores.items()]
    if tally.rounds:
        usage = tally.usage
        parts += [f"{tally.rounds:,} rounds", f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens"]
    return ", ".join(parts)


def _table_of(entries: "list[Entry]", scores: list[str], width: int) -> Table:
    from flowrun.records import gist_of

    sampled = any(entry.record.sample is not None for entry in entries)
    names = ["record", *(["sample"] if sampled else []), "status", *map(str, scores), "rounds", "seconds"]
    rows: list[list[str]] = []
    for entry in entries:
        record = entry.record
        given = record.scores or {}
        rows.append(
            [
                record.name,
                *([str(record.sample or 1)] if sampled else []),
                record.error.name if record.error is not None else record.status,
                *("" if (value := given.get(name)) is None else _spell(value) for name in scores),
                f"{record.rounds:,}",
                "" if record.seconds is None else f"{record.seconds:.1f}",
                gist_of(record),
            ]
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(Text(name), justify="left" if name in ("record", "status") else "right", overflow="fold")
    table.add_column("output or error", no_wrap=True)
    used = sum(2 + max(len(name), *(len(row[at]) for row in rows)) for at, name in enumerate(names))
    for entry, row in zip(entries, rows, strict=True):
        gist = Text(row.pop())
        gist.truncate(min(_MOST, max(_LEAST, width - used)), overflow="ellipsis")
        table.add_row(*map(Text, row), gist, style="red" if entry.record.error is not None else None)
    return table


def _spell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _say_unread(files: "RecordFiles") -> None:
    if files.broken:
        lines = "1 line is no record" if files.broken == 1 else f"{files.broken:,} lines are no records"
        echo(f"{files.path}: {lines}", err=True)
    if files.retried is not None:
        echo(
            f"{files.retried}: results of retried rows, which replace others when the batch ends, are not read",
            err=True,
        )
