"""The control of each field of an answer: what a browser sends for a value, and the value of what it sent. Pure.

A control is chosen so that what it shows of the field's default is read as that default again, and one that nobody
changed is the default itself, whatever was shown of it.
"""

import re
from collections.abc import Mapping, Sequence
from json import dumps
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from flowrun.runtime.answer_form import Field, is_exactly
from flowrun.runtime.typed_answers import COMBINED, SCALARS, Choice, choices_of, items_of, read_answer
from flowrun.spec.json_types import declared_types
from flowrun.spec.model import JSON
from flowrun.spec.strict_json import parse_json, same
from flowrun.unicode import MARK, visible, visible_json

Posted = Mapping[str, Sequence[str]]
"""The texts that were posted under each name."""

Look = Literal["choice", "ticks", "text", "scalar", "lines", "rows", "json"]
Outcome = Literal["missing", "out", "null", "empty"]

MAX_ROWS: Final = 200
"""The most objects of a list that a form has."""

_OF_ANOTHER: Final = {*COMBINED, "$ref", "$dynamicRef"}
"""Keywords by which a schema without types may allow more than its own ones say."""

_LOCAL: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?")
_EMPTY: Final[Mapping[Look, JSON]] = {"text": "", "lines": [], "ticks": [], "rows": []}
"""The value of a control that nothing was typed or ticked in, if it has one."""


class Wrong(ValueError):
    """What was posted for a field is no value of it; the message is the reason."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A field at its place in a form.

    Attributes:
        name: names it in what is posted.
        choices: those that are offered, for ``choice`` and ``ticks``.
        outcomes: what it may mean that nothing was typed or chosen; the first one is meant if nothing is said.
    """

    name: str
    field: Field
    look: Look
    choices: tuple[Choice, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def outcome_name(self) -> str:
        """Return the name of the control that says what an empty one means; a choice says it by itself."""
        return self.name if self.look == "choice" else f"{self.name}.empty"

    @property
    def row_name(self) -> str:
        """Return the name under which the ids of the rows are posted."""
        return f"{self.name}.row"

    def initial(self) -> dict[str, tuple[str, ...]]:
        """Return what a browser sends if nobody changes the field."""
        default, outcome = self.field.default, self.outcomes[0]
        sent: tuple[str, ...] = () if self.look in ("choice", "ticks", "rows") else ("",)
        if default is None and "null" in self.outcomes:
            outcome = "null"
        elif self.look in _EMPTY and is_exactly(default, _EMPTY[self.look]):
            outcome = "empty"
        elif default is not UNSET:
            sent = self.shown(default)
        if self.look == "rows":
            sent = sent or self._first_rows()
        if self.look == "choice":
            return {self.name: sent or ((outcome,) if outcome != "missing" else ())}
        name = self.row_name if self.look == "rows" else self.name
        return {name: sent, self.outcome_name: (outcome,)} if len(self.outcomes) > 1 else {name: sent}

    def _first_rows(self) -> tuple[str, ...]:
        least = self.field.schema.get("minItems")
        is_needed = self.field.default is UNSET and not self.field.optional and isinstance(least, int)
        return tuple(map(str, range(min(least, 3)))) if is_needed and isinstance(least, int) else ()

    def shown(self, value: JSON) -> tuple[str, ...]:
        """Return what a browser sends for a value."""
        match self.look:
            case "choice":
                return _numbers(self.choices, [value])
            case "ticks":
                return _numbers(self.choices, value if isinstance(value, list) else [])
            case "rows":
                return tuple(map(str, range(len(value)))) if isinstance(value, list) else ()
            case "lines":
                return ("\n".join(shown_text(_line(item)) for item in value) if isinstance(value, list) else "",)
            case "text":
                return (shown_text(value) if isinstance(value, str) else "",)
            case "scalar":
                return (shown_text(_line(value)),)
            case "json":
                return (visible_json(dumps(value, ensure_ascii=False, indent=2)),)

    def read(self, posted: Posted) -> JSON | UnsetType:
        """Read the value; UNSET if the field is left out.

        Raises:
            Wrong: it is none of the field's schema, or it is missing.
        """
        sent = tuple(line_feeds(text) for text in posted.get(self.name, ()))
        initial = self.initial()
        now = {name: tuple(map(line_feeds, posted.get(name, ()))) for name in initial}
        if self.field.has_default and now == initial:
            return self.field.default
        if self._is_empty(sent):
            return self._outcome(posted)
        value = self.value(sent)
        if wrong := self.field.validate(value):
            raise Wrong(wrong)
        return value

    def _is_empty(self, sent: Sequence[str]) -> bool:
        if self.look == "choice":
            return not sent or not sent[0] or sent[0] in _OUTCOMES
        if self.look == "rows":
            return True  # those that there are were read before
        return not sent or not (sent[0] if self.look == "text" else sent[0].strip())

    def _outcome(self, posted: Posted) -> JSON | UnsetType:
        said = posted.get(self.outcome_name, ())
        outcome = next((one for one in self.outcomes if one in said), self.outcomes[0])
        match outcome:
            case "out":
                return UNSET
            case "null":
                return None
            case "missing":
                raise Wrong("one of these must be chosen" if self.look == "choice" else "this must be filled in")
            case "empty":
                value = _EMPTY[self.look]
                if wrong := self.field.validate(value):
                    raise Wrong(wrong)
                return value

    def value(self, sent: Sequence[str]) -> JSON:
        """Return the value of what was sent for a control with one value, unchecked.

        Raises:
            Wrong: it cannot be read.
        """
        schema, default = self.field.schema, self.field.default
        match self.look:
            case "choice":
                return _chosen(self.choices, sent[0])
            case "ticks":
                return [_chosen(self.choices, number) for number in sorted(set(sent), key=lambda one: (len(one), one))]
            case "text":
                return _as_date_time(_restored(sent[0], default if isinstance(default, str) else ""), schema)
            case "scalar":
                return read_answer(sent[0], schema)
            case "lines":
                items = items_of(schema)
                return [read_answer(line, items) for line in sent[0].split("\n") if line.strip()]
            case "json":
                return _parsed(sent[0])
            case "rows":
                raise TypeError("the rows of a list are read one by one")


def entry_of(name: str, field: Field, *, choices: Sequence[Choice] = (), plain: bool = False) -> Entry:
    """Return the entry of a field, with the first control that shows its default without loss.

    Args:
        choices: those to offer for a field that is a choice, instead of those of its schema.
        plain: leave it out if nothing is typed, and offer nothing else.
    """
    for look, offered in _looks(field):
        outcomes = _outcomes(field, look)
        entry = Entry(
            name=name,
            field=field,
            look=look,
            choices=tuple(choices or offered),
            outcomes=outcomes[:1] if plain else outcomes,
        )
        if _keeps_default(entry):
            return entry
    return msgspec.structs.replace(entry, look="json", choices=(), outcomes=_outcomes(field, "json"))


class _Offer(NamedTuple):
    look: Look
    choices: Sequence[Choice] = ()


def _looks(field: Field) -> list[_Offer]:
    """Return the controls that may hold the values of a field, the best one first."""
    schema = field.schema
    types, items = declared_types(schema) - {"null"}, items_of(schema)
    if choices := all_choices(schema):
        return [_Offer("choice", choices)]
    if choices := choices_of(items):
        return [_Offer("ticks", choices), _Offer("json")]
    if field.rows:
        return [_Offer("rows"), _Offer("json")]
    if types == {"string"}:
        return [_Offer("text")]
    if types <= SCALARS and (types or schema.keys().isdisjoint(_OF_ANOTHER)):
        return [_Offer("scalar"), _Offer("json")]
    if types == {"array"} and declared_types(items) and declared_types(items) <= SCALARS:
        return [_Offer("lines"), _Offer("json")]
    return [_Offer("json")]


def all_choices(schema: Mapping[str, JSON]) -> list[Choice]:
    """Return the choices of a schema; also those of a constant and of yes or no."""
    if choices := choices_of(schema):
        return choices
    if "const" in schema:
        return [Choice(schema["const"], _line(schema["const"]))]
    if declared_types(schema) - {"null"} == {"boolean"}:
        allowed = schema.get("enum", [True, False])
        return [one for one in (Choice(True, "Yes"), Choice(False, "No")) if one.value in allowed]
    return []


def _outcomes(field: Field, look: Look) -> tuple[Outcome, ...]:
    outcomes: list[Outcome] = []
    if field.optional and not field.nullable:
        outcomes.append("out")
    if _offers_null(field):
        outcomes.append("null")
    if look in _EMPTY and (look != "text" or field.validate("") is None):
        is_needed = look == "text" and not outcomes
        outcomes += ["missing", "empty"] if is_needed else ["empty"]
    return tuple(outcomes or ["missing"])


def _offers_null(field: Field) -> bool:
    """Return whether null is among the values of a field that says which it has, and is no choice of it."""
    is_said = field.nullable or (field.optional and bool(declared_types(field.schema) or "enum" in field.schema))
    return is_said and field.validate(None) is None and all(one.value is not None for one in all_choices(field.schema))


def _keeps_default(entry: Entry) -> bool:
    """Return whether the control shows the default, and reads what it shows as a value that is the same."""
    default = entry.field.default
    if default is UNSET or (default is None and "null" in entry.outcomes):
        return True
    if entry.look == "rows":
        is_list = isinstance(default, list) and len(default) <= MAX_ROWS
        return is_list and all(isinstance(item, Mapping) and entry.field.row_of(item) for item in default)
    if entry.look == "text":
        return True  # marks are read as what they stand for
    sent = entry.shown(default)
    try:
        read = entry.value(sent) if any(sent) else _EMPTY.get(entry.look, UNSET)
    except Wrong:
        return False
    if entry.look == "choice":
        return same(read, default)
    if entry.look == "ticks" and isinstance(read, list) and isinstance(default, list):
        read, default = sorted(read, key=dumps), sorted(default, key=dumps)
    return is_exactly(read, default)


_OUTCOMES: Final = ("missing", "out", "null", "empty")


def _numbers(choices: Sequence[Choice], values: Sequence[JSON]) -> tuple[str, ...]:
    """Return the numbers of the choices with these values."""
    found = (str(number) for number, one in enumerate(choices) if any(same(one.value, value) for value in values))
    return tuple(found)


def _chosen(choices: Sequence[Choice], number: str) -> JSON:
    if not re.fullmatch("[0-9]{1,6}", number) or int(number) >= len(choices):
        raise Wrong("this is none of the choices")
    return choices[int(number)].value


def _parsed(text: str) -> JSON:
    try:
        return parse_json(text)
    except ValueError as exc:
        raise Wrong(f"this is no JSON: {exc}") from exc


def _line(value: JSON) -> str:
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False)


# --- texts --------------------------------------------------------------------------------------------------------


def line_feeds(text: str) -> str:
    """Return a text with the line breaks of Unix: browsers send those of networks (HTML Living Standard)."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def shown_text(text: str) -> str:
    """Return a text as it is shown for editing: with a mark for each character that is not displayed; a tab stays."""
    return "\t".join(map(visible, text.replace("\r\n", "\n").split("\t")))


def _restored(text: str, default: str) -> str:
    """Return a typed text in which the marks that were shown are what they stand for, and line breaks as before.

    Raises:
        Wrong: some of the marks are gone, so that nobody knows which the others are.
    """
    given = default.replace("\r\n", "\n")
    hidden = [character for character in given if character != "\t" and visible(character) == MARK]
    if hidden and MARK in text:
        if text.count(MARK) != len(hidden):
            raise Wrong(f"of the {len(hidden)} characters shown as {MARK}, keep all or none")
        first, *others = text.split(MARK)
        text = first + "".join(f"{character}{part}" for character, part in zip(hidden, others, strict=True))
    return text.replace("\n", "\r\n") if default.count("\r\n") == default.count("\n") > 0 else text


def _as_date_time(text: str, schema: Mapping[str, JSON]) -> str:
    """Return a text; a point in time without its zone is one of UTC (RFC 3339 wants a zone, browsers send none)."""
    if schema.get("format") != "date-time" or not _LOCAL.fullmatch(text):
        return text
    return f"{text}Z" if text.count(":") == 2 else f"{text}:00Z"
