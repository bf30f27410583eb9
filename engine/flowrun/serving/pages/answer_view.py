"""Renders a form of an answer with what is typed in it and what is wrong. Pure.

The texts of models, flows and tools are shown in places of their own, and escaped; so none looks like flowrun's words.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Final

import msgspec
from jinja2 import Template
from markupsafe import Markup, escape

from flowrun.runtime.answer_form import Condition
from flowrun.runtime.run_result import InputRequest
from flowrun.runtime.typed_answers import as_typed
from flowrun.serving.pages.controls import MAX_ROWS, Entry, Outcome, Posted, line_feeds
from flowrun.serving.pages.inputs import hints, input_mode, input_type, lines, text_of
from flowrun.serving.pages.rows import row_entries, rows_of
from flowrun.spec.model import JSON
from flowrun.transcript.page_parts import mark_json, page_templates, read_part
from flowrun.unicode import MARK, well_formed

QUESTION: Final = "question"
"""The name under which the id of the question is posted."""

CHANGE: Final = "change"
"""The name of the buttons that add and remove rows."""

_FEW: Final = 5
"""So many choices are all shown; of more, one is chosen from a list."""

_MEANS: Final[Mapping[Outcome, str]] = {
    "missing": "not answered yet",
    "out": "left out",
    "null": "nothing (null)",
    "empty": "empty",
}

_OWN_LABELS: Final[Mapping[tuple[str, ...], str]] = {
    ("ok",): "Shall the call be made?",
    ("reason",): "Reason, which the model reads",
}
"""The labels of the fields of a question about a call."""

_NOT_ALLOWED: Final = re.compile("[^\t\n\x20-\x7e\xa0-\U0010ffff]")
"""Characters that no page may have (HTML Living Standard, "preprocessing the input stream")."""


class Option(msgspec.Struct, frozen=True):
    """A choice in the form: what is posted for it, and whether it is chosen."""

    value: str
    name: str
    note: str
    chosen: bool


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A field as it is shown; the template knows the rest by its ``entry``."""

    entry: Entry
    id: str
    label: str
    name: str
    about: str
    hints: Sequence[str]
    wrong: str
    text: Markup
    input_type: str
    input_mode: str
    lines: int
    options: Sequence[Option]
    outcomes: Sequence[Option]
    rows: "Sequence[ShownRow]"
    asked_if: str
    rules: str
    schema: JSON


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an object. ``folded``: they are shown when somebody wants to change them."""

    label: str
    name: str
    about: str
    parts: "Sequence[Shown | Group]"
    asked_if: str
    rules: str
    folded: bool = False
    open: bool = False


class ShownRow(msgspec.Struct, frozen=True, kw_only=True):
    """An object of a list."""

    name: str
    number: int
    parts: Sequence[Shown | Group]


class Mistake(msgspec.Struct, frozen=True):
    """What is wrong, for the summary. ``id``: of the field; empty for the answer as a whole."""

    id: str
    label: str
    message: str


def render_view(
    request: InputRequest, entries: Sequence[Entry], posted: Posted, *, action: str, wrongs: Mapping[str, str] = {}
) -> Markup:
    """Render the form of a question.

    Args:
        posted: what its controls hold.
        wrongs: what is wrong, by the name of the entry; that of the answer as a whole by the empty name.
    """
    viewer = _Viewer(request, posted, wrongs)
    parts = viewer.parts(entries)
    page = _template().render(
        request=request,
        action=_typed(action),
        question=_typed(request.id),
        id=viewer.prefix,
        parts=parts,
        mistakes=[*_mistakes(parts), *(Mistake("", "", wrongs[name]) for name in ("",) if name in wrongs)],
        given=[] if request.call is None else list(_given(request.call)),
    )
    return Markup(page)  # noqa: S704 - its template escapes


@cache
def _template() -> Template:
    environment = page_templates({"answer": read_part("answer.html.jinja", __package__)})
    environment.filters |= {"json": mark_json}
    environment.globals |= {
        "CHANGE": CHANGE,
        "QUESTION": QUESTION,
        "MAX_ROWS": MAX_ROWS,
        "FEW": _FEW,
        "is_group": _is_group,
    }
    return environment.get_template("answer")


def _is_group(part: Shown | Group) -> bool:
    return isinstance(part, Group)


def _given(call: Mapping[str, JSON]) -> Iterator[tuple[str, JSON, bool, bool]]:
    """Yield the arguments of a call: name, value, whether the flow gives it, and whether it is shown as lines."""
    for key, hidden in (("arguments", False), ("hidden", True)):
        for name, value in call[key].items():
            yield name, value, hidden, isinstance(value, str) and "\n" in value


def _mistakes(parts: Sequence[Shown | Group], before: str = "") -> Iterator[Mistake]:
    for part in parts:
        if isinstance(part, Group):
            yield from _mistakes(part.parts, before if part.folded else f"{before}{part.label}, ")
            continue
        if part.wrong:
            yield Mistake(part.id, f"{before}{part.label}", part.wrong)
        for row in part.rows:
            yield from _mistakes(row.parts, f"{before}{part.label} {row.number}, ")


class _Viewer:
    """Makes the views of entries, with what was posted for them."""

    def __init__(self, request: InputRequest, posted: Posted, wrongs: Mapping[str, str]) -> None:
        digest = hashlib.sha256(request.id.encode(errors="replace")).hexdigest()
        self.prefix = f"q{digest[:8]}"
        self._request = request
        self._posted = posted
        self._wrongs = wrongs

    def parts(self, entries: Sequence[Entry], *, in_row: bool = False) -> list[Shown | Group]:
        """Return the fields, those of each object in its group; in a question about a call, its arguments are folded.

        Args:
            in_row: they are those of an object of a list.
        """
        sources = {entry.field.path: entry for entry in entries}
        shown = [self._shown(entry, sources, in_row=in_row) for entry in entries]
        if self._request.call is None or in_row:
            return _grouped(shown, 0, ())
        folded = [one for one in shown if one.entry.field.path[:1] == ("arguments",)]
        others = [one for one in shown if one.entry.field.path[:1] != ("arguments",)]
        groups = [self._folded(folded)] if folded else []
        return [*_grouped(others[:1], 0, ()), *groups, *_grouped(others[1:], 0, ())]

    def _folded(self, fields: Sequence[Shown]) -> Group:
        """Return the arguments of a call, which are shown when somebody wants to change them."""
        return Group(
            label="Change the arguments",
            name="",
            about="",
            parts=_grouped(fields, 1, fields[0].entry.field.conditions[:1]),
            asked_if=fields[0].asked_if,
            rules=fields[0].rules,
            folded=True,
            open=any(_is_touched(field, self._posted) for field in fields),
        )

    def _shown(self, entry: Entry, sources: Mapping[tuple[str, ...], Entry], *, in_row: bool) -> Shown:
        field = entry.field
        text = line_feeds(next(iter(self._posted.get(entry.name, ())), ""))
        own = "" if in_row or self._request.call is None else _OWN_LABELS.get(field.path, "")
        title = text_of(field.schema, "title")
        name = field.path[-1] if field.path else ""
        return Shown(
            entry=entry,
            id=f"{self.prefix}-{entry.name}",
            label=own or title or name or "Answer",
            name=name if title else "",
            about="" if own else text_of(field.schema, "description"),
            hints=list(hints(entry)),
            wrong=self._wrongs.get(entry.name, ""),
            text=_typed(text),
            input_type=input_type(entry, text),
            input_mode=input_mode(entry),
            lines=lines(entry, text),
            options=self._options(entry),
            outcomes=self._outcomes(entry),
            rows=list(self._rows(entry)) if entry.look == "rows" else (),
            asked_if=" and ".join(self._said(one) for one in field.conditions),
            rules=self._rules(field.conditions, sources),
            schema={key: value for key, value in field.schema.items() if key != "default"} | self._definitions(entry),
        )

    def _definitions(self, entry: Entry) -> dict[str, JSON]:
        """Return the definitions that the schema of a field may refer to."""
        root = self._request.schema
        return {key: root[key] for key in ("$defs", "definitions") if key in root and entry.look == "json"}

    def _options(self, entry: Entry) -> list[Option]:
        sent = self._posted.get(entry.name, ())
        options = [
            Option(str(number), choice.name, choice.note, str(number) in sent)
            for number, choice in enumerate(entry.choices)
        ]
        if entry.look == "choice":
            others = [outcome for outcome in entry.outcomes if outcome != "missing"]
            options += (Option(one, _MEANS[one].capitalize(), "", one in sent) for one in others)
        return options

    def _outcomes(self, entry: Entry) -> list[Option]:
        if entry.look == "choice" or len(entry.outcomes) < 2:
            return []
        said = self._posted.get(entry.outcome_name, ())
        chosen = next((one for one in entry.outcomes if one in said), entry.outcomes[0])
        kind = "text" if entry.look == "text" else "list"
        return [
            Option(one, f"an empty {kind}" if one == "empty" else _MEANS[one], "", one == chosen)
            for one in entry.outcomes
        ]

    def _rows(self, entry: Entry) -> Iterator[ShownRow]:
        for number, row in enumerate(rows_of(entry, self._posted)[:MAX_ROWS], 1):
            yield ShownRow(
                name=f"{entry.name}.{row}", number=number, parts=self.parts(row_entries(entry, row), in_row=True)
            )

    def _said(self, condition: Condition) -> str:
        if self._request.call is not None and condition.path == ("ok",):
            return "you refuse" if condition.unless else "you approve"
        return f"{'.'.join(condition.path)} is {'not ' if condition.unless else ''}{as_typed(condition.value)}"

    def _rules(self, conditions: Sequence[Condition], sources: Mapping[tuple[str, ...], Entry]) -> str:
        """Return the conditions for the script: of each, the control, what it sends, and whether it must not.

        Only choices are compared there: what is typed may be written in several ways.
        """
        rules: list[JSON] = []
        for one in conditions:
            entry = sources.get(one.path)
            if entry is not None and entry.look == "choice":
                rules.append([entry.name, list(entry.shown(one.value)), one.unless])
        return json.dumps(rules) if rules else ""


def _grouped(shown: Sequence[Shown], depth: int, known: tuple[Condition, ...]) -> list[Shown | Group]:
    """Return fields, those of each object in its group.

    Args:
        depth: the number of names in their paths that lead to groups around them.
        known: the conditions that those groups show.
    """
    parts: list[Shown | Group] = []
    for _, run in groupby(shown, lambda one: one.entry.field.path[: depth + 1]):
        fields = list(run)
        if len(fields[0].entry.field.path) > depth + 1:
            parts.append(_group(fields, depth, known))
        else:
            parts += (_without_conditions(one, known) for one in fields)
    return parts


def _group(fields: Sequence[Shown], depth: int, known: tuple[Condition, ...]) -> Group:
    first = fields[0].entry.field
    shared = tuple(one for one in first.conditions if all(one in field.entry.field.conditions for field in fields))
    schema, name = first.around[depth] if len(first.around) > depth else {}, first.path[depth]
    conditional = next((one for one in fields if len(one.entry.field.conditions) == len(shared)), fields[0])
    shows = any(one not in known for one in shared)
    title = text_of(schema, "title")
    return Group(
        label=title or name,
        name=name if title else "",
        about=text_of(schema, "description"),
        parts=_grouped(fields, depth + 1, shared),
        asked_if=conditional.asked_if if shows else "",
        rules=conditional.rules if shows else "",
    )


def _without_conditions(shown: Shown, known: tuple[Condition, ...]) -> Shown:
    """Return a field without its conditions, if they are those of its group."""
    if all(condition in known for condition in shown.entry.field.conditions):
        return msgspec.structs.replace(shown, asked_if="", rules="")
    return shown


def _is_touched(shown: Shown, posted: Posted) -> bool:
    """Return whether a field is not as it was given."""
    now = {name: tuple(map(line_feeds, posted.get(name, ()))) for name in shown.entry.initial()}
    inner = any(_is_touched(one, posted) for row in shown.rows for one in _flat(row.parts))
    return bool(shown.wrong) or inner or now != shown.entry.initial()


def _flat(parts: Sequence[Shown | Group]) -> Iterator[Shown]:
    for part in parts:
        if isinstance(part, Group):
            yield from _flat(part.parts)
        else:
            yield part


def _typed(text: str) -> Markup:
    """Return what was typed, as it was: only what no page may have is replaced."""
    return escape(_NOT_ALLOWED.sub(MARK, well_formed(text)))


__all__ = ["CHANGE", "QUESTION", "render_view"]
