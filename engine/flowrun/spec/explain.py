"""Explanations of why a document does not match its JSON Schema: one issue per mistake, none for its consequences.

The schema is written for these explanations. It selects variants by if/then instead of anyOf; where it uses anyOf, the
first branch is the one that authors usually mean. ``title`` is the noun for the thing that a subschema describes, and
remedies show the first of ``examples``.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator

from flowrun.errors import Issue, Path, Place, dotted
from flowrun.excerpts import cut
from flowrun.spec.document import Document, issue_at
from flowrun.spec.model import JSON
from flowrun.spec.phrases import listed, name_of, show, with_article
from flowrun.spec.remedies import add_property, like_example, meant_by, type_remedy, valid_name
from flowrun.spec.suggestions import closest

MAX_EXPLAINED: Final = 500
"""The most mistakes that are explained: nobody reads more at once, and each remedy searches for similar names."""


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """An issue without a position yet.

    ``missing`` and ``meant`` name properties of the mapping at ``owner``: those that it lacks, and the one that was
    probably meant by an unknown property. ``key`` points to the key instead of the value.
    """

    code: str
    path: Path
    message: str
    remedy: str = ""
    key: bool = False
    owner: Path = ()
    missing: frozenset[str] = frozenset()
    meant: str = ""


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """An error of the ``jsonschema`` package, with the document and the root schema."""

    error: Any
    document: Document
    root: dict[str, JSON]

    @property
    def path(self) -> Path:
        return tuple(self.error.absolute_path)

    @property
    def schema(self) -> dict[str, JSON]:
        schema: dict[str, JSON] = self.error.schema
        return schema

    @property
    def title(self) -> str:
        """Return the title of the subschema, by default that of any mapping."""
        return str(self.schema.get("title", "mapping"))

    @property
    def name(self) -> str:
        return name_of(self.path)

    @property
    def hidden(self) -> bool:
        """Return whether the value, or a part of it, came from the environment."""
        return self.path in self.document.written

    @property
    def shown(self) -> str:
        return show(self.error.instance, self.document.written.get(self.path))

    def mistake(
        self, code: str, message: str, remedy: str, *, key: bool = False, missing: frozenset[str] = frozenset()
    ) -> Mistake:
        """Return a mistake at the value of the mismatch, or at its key."""
        path = self.path
        return Mistake(code=code, path=path, message=message, remedy=remedy, key=key, owner=path, missing=missing)


def explain_mismatch(document: Document, schema: dict[str, JSON]) -> list[Issue]:
    """Return the mistakes that the ``jsonschema`` package finds, ``MAX_EXPLAINED`` at most.

    The list is empty if that package finds none or exceeds Python's recursion limit.
    """
    errors = Draft202012Validator(schema).iter_errors(document.value)
    try:
        mistakes = list(islice(_explain_all(errors, document, schema), MAX_EXPLAINED))
    except RecursionError:
        return []
    corrected = {(mistake.owner, mistake.meant) for mistake in mistakes if mistake.meant}
    issues = [
        issue_at(document, mistake.code, mistake.path, mistake.message, mistake.remedy, key=mistake.key)
        for mistake in mistakes
        if not any((mistake.owner, name) in corrected for name in mistake.missing)
    ]
    unique: dict[tuple[str, Place, str], Issue] = {}
    # A mistake in a profile is also found at the path where it was merged; the longer path is the one in the file.
    for issue in sorted(issues, key=lambda issue: (-len(issue.path), dotted(issue.path))):
        unique.setdefault((issue.code, issue.place, issue.message), issue)
    return list(unique.values())


def _explain_all(errors: Iterable[Any], document: Document, root: dict[str, JSON]) -> Iterator[Mistake]:
    reported: set[Path] = set()
    for error in errors:
        mismatch = Mismatch(error=error, document=document, root=root)
        if "propertyNames" in list(error.absolute_schema_path)[-3:]:
            explained = _wrong_name(mismatch)
        else:
            explained = _EXPLAINERS.get(error.validator, _other)(mismatch)
        for mistake in explained:
            if mistake.key or mistake.path not in reported:
                yield mistake
            if not mistake.key:
                reported.add(mistake.path)  # one issue per value, even if it breaks two keywords


# --- one explainer a keyword --------------------------------------------------------------------------------------


def _wrong_name(mismatch: Mismatch) -> Iterator[Mistake]:
    name = str(mismatch.error.instance)
    yield Mistake(
        code="FR209",
        path=(*mismatch.path, name),
        key=True,
        message=f"{show(name).removeprefix('the text ')} is not {with_article(mismatch.schema.get('title', 'name'))}",
        remedy=valid_name(name, mismatch.schema),
    )


def _unknown_property(mismatch: Mismatch) -> Iterator[Mistake]:
    schema, present = mismatch.schema, mismatch.error.instance
    known = schema.get("properties", {})
    unused = [name for name in known if name not in present]
    for name in present:
        if name in known or any(re.search(pattern, name) for pattern in schema.get("patternProperties", {})):
            continue
        yield Mistake(
            code="FR201",
            path=(*mismatch.path, name),
            key=True,
            message=f"'{cut(name, 60)}' is not a property of {with_article(mismatch.title)}",
            remedy=meant_by(name, unused, schema, mismatch.root),
            owner=mismatch.path,
            meant=closest(name, unused),
        )


def _missing_property(mismatch: Mismatch) -> Iterator[Mistake]:
    required = mismatch.error.validator_value
    name = next(name for name in required if mismatch.error.message.startswith(f"{name!r} "))
    known = mismatch.schema.get("properties", {})
    present = mismatch.error.instance
    misspelt = closest(name, [other for other in present if other not in known])
    add = _add(mismatch, name)
    remedy = f"is '{misspelt}' meant to be '{name}'?" if misspelt else add
    message = f"{with_article(mismatch.title)} needs '{name}'"
    yield mismatch.mistake("FR202", message, remedy, key=True, missing=frozenset({name}))


def _wrong_type(mismatch: Mismatch) -> Iterator[Mistake]:
    types = mismatch.error.validator_value
    types = [types] if isinstance(types, str) else types
    schema, message = mismatch.schema, _must_be(mismatch, _expected(mismatch, types))
    remedy = like_example(schema) if mismatch.hidden else type_remedy(mismatch.error.instance, types, schema)
    yield mismatch.mistake("FR203", message, remedy)


def _not_allowed(mismatch: Mismatch) -> Iterator[Mistake]:
    allowed = mismatch.error.validator_value
    allowed = allowed if isinstance(allowed, list) else [allowed]
    spelt = [value if isinstance(value, str) else json.dumps(value) for value in allowed]
    title = mismatch.schema.get("title")
    one_of = spelt[0] if len(spelt) == 1 else f"one of {', '.join(spelt)}"
    value = mismatch.error.instance
    similar = closest(value, spelt) if isinstance(value, str) and not mismatch.hidden else ""
    message = _must_be(mismatch, with_article(title) if title and len(spelt) > 1 else one_of)
    yield mismatch.mistake("FR204", message, f"did you mean '{similar}'?" if similar else f"write {one_of}")


def _wrong_form(mismatch: Mismatch) -> Iterator[Mistake]:
    message = _must_be(mismatch, with_article(mismatch.schema.get("title", "text of another form")))
    is_state = mismatch.path[-1:] in (("next",), ("to",), ("start",))
    remedy = f"name a state, such as {_other_state(mismatch)}" if is_state and _other_state(mismatch) else ""
    yield mismatch.mistake("FR205", message, remedy or like_example(mismatch.schema))


def _out_of_range(mismatch: Mismatch) -> Iterator[Mistake]:
    bound = _BOUNDS[mismatch.error.validator].format(mismatch.error.validator_value)
    yield mismatch.mistake("FR206", _must_be(mismatch, bound), f"make it {bound}")


def _wrong_size(mismatch: Mismatch) -> Iterator[Mistake]:
    keyword, limit = mismatch.error.validator, mismatch.error.validator_value
    if keyword == "uniqueItems":
        yield mismatch.mistake("FR207", f"{mismatch.name} has the same item twice", "delete one of them")
        return
    template, one, many = _SIZES[keyword]
    size = template.format(limit, one if limit == 1 else many)
    message = f"{mismatch.name} {size}, and has {len(mismatch.error.instance)}"
    yield mismatch.mistake("FR207", message, like_example(mismatch.schema))


def _one_of(mismatch: Mismatch) -> Iterator[Mistake]:
    """Explain a choice among required properties; explain any other anyOf or oneOf by its first branch."""
    branches = mismatch.error.validator_value
    if not all("required" in branch for branch in branches):
        first = [child for child in mismatch.error.context if child.relative_schema_path[0] == 0]
        yield from _explain_all(first or [], mismatch.document, mismatch.root)
        return
    if not isinstance(mismatch.error.instance, dict):
        return  # the keyword "type" reports it
    choices = [name for branch in branches for name in branch["required"]]
    present = [name for name in choices if name in mismatch.error.instance]
    title = with_article(mismatch.title)
    if present:
        yield mismatch.mistake("FR208", f"{title} has {listed(present, 'and')}", "keep one of them", key=True)
        return
    remedy = _add(mismatch, choices[0])
    message = f"{title} needs {listed(choices, 'or')}"
    yield mismatch.mistake("FR208", message, remedy, key=True, missing=frozenset(choices))


def _add(mismatch: Mismatch, name: str) -> str:
    """Return a remedy that adds a property; the name of a state is that of one that is there."""
    if name in ("next", "to") and (state := _other_state(mismatch)):
        return f"add '{name}: {state}'"
    return add_property(name, mismatch.schema.get("properties", {}).get(name), mismatch.root)


def _other_state(mismatch: Mismatch) -> str:
    """Return the last state of the flow that a mismatch is in, other than the state itself; "" if there is none."""
    path = list(mismatch.path)
    if "states" not in path:
        return ""
    at = len(path) - 1 - path[::-1].index("states")
    value = mismatch.document.value
    for key in path[: at + 1]:
        value = value[key]
    others = [name for name in value if name not in path[at + 1 : at + 2]] if isinstance(value, dict) else []
    return str(others[-1]) if others else ""


def _excluded(mismatch: Mismatch) -> Iterator[Mistake]:
    message = mismatch.error.validator_value.get("title", "this combination is not allowed")
    yield mismatch.mistake("FR208", message, "keep one of them", key=True)


def _other(mismatch: Mismatch) -> Iterator[Mistake]:
    message = f"{mismatch.name} does not match the schema's '{mismatch.error.validator}'"
    yield mismatch.mistake("FR210", message, like_example(mismatch.schema))


_BOUNDS: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
}

_SIZES: Final = {
    "minItems": ("must have at least {} {}", "item", "items"),
    "maxItems": ("must have at most {} {}", "item", "items"),
    "minProperties": ("must have at least {} {}", "entry", "entries"),
    "maxProperties": ("must have at most {} {}", "entry", "entries"),
    "minLength": ("must have at least {} {}", "character", "characters"),
    "maxLength": ("must have at most {} {}", "character", "characters"),
}

_EXPLAINERS: Final[dict[str | None, Callable[[Mismatch], Iterator[Mistake]]]] = {
    "additionalProperties": _unknown_property,
    "required": _missing_property,
    "type": _wrong_type,
    "enum": _not_allowed,
    "const": _not_allowed,
    "pattern": _wrong_form,
    **dict.fromkeys(_BOUNDS, _out_of_range),
    **dict.fromkeys((*_SIZES, "uniqueItems"), _wrong_size),
    "oneOf": _one_of,
    "anyOf": _one_of,
    "not": _excluded,
}

_TYPES: Final = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "empty",
}

# --- formatting ---------------------------------------------------------------------------------------------------


def _must_be(mismatch: Mismatch, expected: str) -> str:
    return f"{mismatch.name} must be {expected}, and is {mismatch.shown}"


def _expected(mismatch: Mismatch, types: list[str]) -> str:
    """Return the noun for the expected value: its JSON type, or the subschema's title if several types are allowed.

    A union of types is written as ``if`` the value is of one, ``else`` of the other.
    """
    title = mismatch.schema.get("title")
    in_union = mismatch.error.absolute_schema_path[-2] == "else" and "properties" not in mismatch.schema
    if title and (len(types) > 1 or in_union):
        return with_article(title)
    return " or ".join(_TYPES[kind] for kind in types if kind != "null" or len(types) == 1)
