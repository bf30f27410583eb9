"""The entries of a form as they were posted: those of the question, and those of each row of its lists. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from flowrun.runtime.answer_form import Field
from flowrun.serving.pages.controls import MAX_ROWS, Entry, Posted, entry_of

MAX_MORE: Final = 1_000
"""The most rows that are added to all the lists of a form."""

_ROW: Final = re.compile("[0-9]{1,6}")


def rows_of(entry: Entry, posted: Posted) -> list[int]:
    """Return the ids of the rows of a list; one that is there twice is the same row."""
    ids = posted.get(entry.row_name, ())
    return list(dict.fromkeys(int(one) for one in ids[: 2 * MAX_ROWS] if _ROW.fullmatch(one)))


def count_rows(posted: Posted) -> int:
    """Return the number of rows of all lists."""
    return sum(len(ids) for name, ids in posted.items() if name.endswith(".row"))


def row_entries(entry: Entry, row: int) -> list[Entry]:
    """Return the entries of a row: the first ones have the objects of the default, by their numbers."""
    default = entry.field.default
    fields: Sequence[Field] = ()
    if isinstance(default, list) and row < len(default):
        fields = entry.field.row_of(default[row])
    return entries_of(fields or entry.field.rows, f"{entry.name}.{row}.")


def entries_of(fields: Sequence[Field], prefix: str = "") -> list[Entry]:
    """Return the entries of fields, named by their numbers."""
    return [entry_of(f"{prefix}f{number}", field) for number, field in enumerate(fields)]


def initial_of(entries: Sequence[Entry]) -> dict[str, tuple[str, ...]]:
    """Return what a browser sends if nobody changes anything."""
    sent: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        sent |= entry.initial()
        if entry.look == "rows":
            for row in rows_of(entry, sent):
                sent |= initial_of(row_entries(entry, row))
    return sent


def changed(entries: Sequence[Entry], posted: Posted, change: str) -> dict[str, Sequence[str]] | None:
    """Return what is posted with one row more or less; None if there is no such row or list.

    Args:
        change: ``add LIST`` or ``remove ROW``, by their names.
    """
    verb, _, name = change.partition(" ")
    for entry in _lists(entries, posted):
        rows = rows_of(entry, posted)
        if verb == "add" and name == entry.name:
            return _with_row(entry, rows, posted)
        if verb == "remove" and (row := name.removeprefix(f"{entry.name}.")) in map(str, rows):
            return {**posted, entry.row_name: [str(one) for one in rows if str(one) != row]}
    return None


def _lists(entries: Sequence[Entry], posted: Posted) -> Iterator[Entry]:
    for entry in entries:
        if entry.look == "rows":
            yield entry
            for row in rows_of(entry, posted)[:MAX_ROWS]:
                yield from _lists(row_entries(entry, row), posted)


def _with_row(entry: Entry, rows: Sequence[int], posted: Posted) -> dict[str, Sequence[str]]:
    default = entry.field.default
    row = max((-1, *rows, len(default) - 1 if isinstance(default, list) else -1)) + 1
    if len(rows) >= MAX_ROWS or not _ROW.fullmatch(str(row)):
        return dict(posted)
    return {**posted, entry.row_name: [*map(str, rows), str(row)], **initial_of(row_entries(entry, row))}


def by_name(pairs: Sequence[tuple[str, str]]) -> Mapping[str, Sequence[str]]:
    """Return the texts that were posted under each name."""
    posted: dict[str, list[str]] = {}
    for name, text in pairs:
        posted.setdefault(name, []).append(text)
    return posted
