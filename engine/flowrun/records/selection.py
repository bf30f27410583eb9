"""Selects records: by a condition over their members, and by row and sample. Conditions are those of specs."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from flowrun.errors import UsageError
from flowrun.records.record import Entry, Record
from flowrun.records.record_files import RecordFiles
from flowrun.spec.schema import RESULT_SCHEMA, read_schema
from flowrun.spec.suggestions import suggest
from flowrun.templates import TemplateError, compile_condition
from flowrun.templates.reads import reads_of_expression

WHERE: Final = "--where"
SCORES: Final = "scores"
"""A member that the schema of results does not have: evaluations add it."""


class Selection:
    """The records that are selected. Without any condition, all of them."""

    def __init__(self, *, where: str | None = None, row: str | None = None, sample: int | None = None) -> None:
        """Compile the condition.

        Args:
            where: an expression of the spec language over the members of a record; those that it lacks are null.
            row: the id of a row, or, if no record has this id, its number.

        Raises:
            UsageError: it is no expression, or reads what no record has.
        """
        self._where = None if where is None else _compile(where)
        self._row, self._sample = row, sample

    def select(self, files: RecordFiles) -> Iterator[Entry]:
        """Yield the selected records.

        Raises:
            UsageError: a file cannot be read, or the condition cannot be evaluated for a record.
        """
        of_row = self._of_row(files)
        for entry in files.entries():
            if not of_row(entry.record) or self._sample not in (None, entry.record.sample or 1):
                continue
            if self._where is None or self._where(entry):
                yield entry

    def _of_row(self, files: RecordFiles) -> Callable[[Record], bool]:
        row = self._row
        if row is None:
            return lambda record: True
        if any(entry.record.name == row for entry in files.entries()):
            return lambda record: record.name == row
        return lambda record: record.row is not None and str(record.row) == row


def _compile(where: str) -> Callable[[Entry], bool]:
    members = read_schema(RESULT_SCHEMA)["properties"].keys() | {SCORES}
    try:
        evaluate = compile_condition(where, what=WHERE)
        read = reads_of_expression(where).roots
    except TemplateError as exc:
        raise UsageError(f"{_named(exc)}; it is an expression, such as \"status == 'failed'\"") from exc
    for name in sorted(read - members):
        raise UsageError(f"{WHERE}: a record has no {name!r}; {suggest(name, members, 'members')}")
    missing = dict.fromkeys(members)

    def matches(entry: Entry) -> bool:
        scope: Mapping[str, Any] = {**missing, **msgspec.json.decode(entry.raw)}
        try:
            return evaluate(scope)
        except TemplateError as exc:
            raise UsageError(f"{entry.place}: {_named(exc)}{_remedy(scope, read)}") from exc

    return matches


def _named(exc: TemplateError) -> str:
    text = str(exc)
    return text if text.startswith(WHERE) else f"{WHERE}: {text}"


def _remedy(scope: Mapping[str, Any], read: frozenset[str]) -> str:
    """Return what to do if a member that the condition reads is null, as `error` is in records of success."""
    null = [name for name in sorted(read) if scope[name] is None]
    return f'; {null[0]!r} is null in this record: write "{null[0]} and ..."' if null else ""
