"""The form of a question that a run asks a person, for browsers: made of its JSON Schema, whole without a script.

Nothing that comes back is trusted: names that the form does not have are ignored, each value is checked against the
schema of its field, and the answer against that of the question. What is no answer is the form again, with what was
typed and what is wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from markupsafe import Markup
from msgspec import UNSET, UnsetType

from flowrun.core.json_schema import compile_schema
from flowrun.runtime.answer_form import assemble, fields_of
from flowrun.runtime.run_result import InputRequest
from flowrun.runtime.typed_answers import Choice
from flowrun.serving.pages.answer_view import CHANGE, QUESTION, render_view
from flowrun.serving.pages.controls import MAX_ROWS, Entry, Posted, Wrong, entry_of
from flowrun.serving.pages.rows import MAX_MORE, by_name, changed, count_rows, initial_of, row_entries, rows_of
from flowrun.spec.model import JSON
from flowrun.transcript.page_parts import read_part

_CONSENT: Final = (Choice(True, "Approve"), Choice(False, "Refuse"))


class Filled(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a form that was posted.

    Attributes:
        value: the answer, which matches the schema of the question, if there is no ``form``.
        form: the form again: with what was typed and what is wrong beside each field, or with one row more or less.
    """

    value: JSON = None
    form: Markup | None = None


def render_form(request: InputRequest, *, action: str) -> Markup:
    """Render the form of a question, filled in with the defaults.

    Args:
        action: the address that it is posted to.
    """
    entries = _entries(request)
    return render_view(request, entries, initial_of(entries), action=action)


def read_form(request: InputRequest, posted: Sequence[tuple[str, str]], *, action: str) -> Filled:
    """Read the form of a question as it was posted.

    Args:
        posted: names and texts, as browsers send them.
    """
    entries, sent = _entries(request), by_name(posted)
    initial = initial_of(entries)
    if count_rows(sent) > count_rows(initial) + MAX_MORE:
        wrong = f"a form has at most {MAX_MORE} rows more than it had at first"
        return Filled(form=render_view(request, entries, initial, action=action, wrongs={"": wrong}))
    if CHANGE in sent:
        now = changed(entries, sent, sent[CHANGE][0])
        return Filled(form=render_view(request, entries, sent if now is None else now, action=action))
    wrongs: dict[str, str] = {}
    values = _read(entries, sent, wrongs)
    answer = None if wrongs else assemble([entry.field for entry in entries], values)
    if not wrongs and (mismatch := compile_schema(request.schema)(answer)):
        wrongs[""] = mismatch
    if not wrongs:
        return Filled(value=answer)
    return Filled(form=render_view(request, entries, sent, action=action, wrongs=wrongs))


def form_style() -> str:
    """Return the style sheet of forms; it needs the colours of the style sheet of all pages."""
    return read_part("answer.css", __package__)


def form_script() -> str:
    """Return the script of forms, which hides what is not asked for."""
    return read_part("answer.js", __package__)


def _entries(request: InputRequest) -> list[Entry]:
    """Return the entries of a question; one about a call has words for yes and no, and needs no empty reason."""
    asks_consent = request.call is not None
    return [
        entry_of(
            f"f{number}",
            field,
            choices=_CONSENT if asks_consent and field.path == ("ok",) else (),
            plain=asks_consent and field.path == ("reason",),
        )
        for number, field in enumerate(fields_of(_with_arguments(request.schema) if asks_consent else request.schema))
    ]


def _with_arguments(schema: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return the schema of a question about a call in which who approves gives its arguments: the form has them all."""
    then = schema.get("then")
    if not isinstance(then, Mapping) or "arguments" not in then.get("properties", ()):
        return schema
    return {**schema, "then": {**then, "required": ["arguments"]}}


def _read(entries: Sequence[Entry], posted: Posted, wrongs: dict[str, str]) -> dict[tuple[str, ...], JSON]:
    """Return the values of the fields that are asked for, and add what is wrong, by the names of the entries."""
    values: dict[tuple[str, ...], JSON] = {}
    unknown: set[tuple[str, ...]] = set()
    for entry in entries:
        field = entry.field
        if not field.is_asked(values) or any(condition.path in unknown for condition in field.conditions):
            continue
        try:
            value = _read_rows(entry, posted, wrongs) if entry.look == "rows" else entry.read(posted)
        except Wrong as exc:
            wrongs[entry.name] = str(exc)
            unknown.add(field.path)
            continue
        if value is not UNSET:
            values[field.path] = value
    return values


def _read_rows(entry: Entry, posted: Posted, wrongs: dict[str, str]) -> JSON | UnsetType:
    """Read the objects of a list.

    Raises:
        Wrong: there are too many, or the list as a whole does not match its schema.
    """
    rows = rows_of(entry, posted)
    if len(rows) > MAX_ROWS:
        raise Wrong(f"a form has at most {MAX_ROWS} rows")
    if not rows:
        return entry.read(posted)
    known = len(wrongs)
    objects = [_read_row(row_entries(entry, row), posted, wrongs) for row in rows]
    if len(wrongs) == known and (wrong := entry.field.validate(objects)):
        raise Wrong(wrong)
    return objects


def _read_row(entries: Sequence[Entry], posted: Posted, wrongs: dict[str, str]) -> JSON:
    values = _read(entries, posted, wrongs)
    return assemble([entry.field for entry in entries], values)


__all__ = ["QUESTION", "Filled", "form_script", "form_style", "read_form", "render_form"]
