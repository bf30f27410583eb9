"""The form of an answer: the fields of a JSON Schema, and the answer that their values make. Pure."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from json import dumps
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from flowrun.core.json_schema import Validator, compile_schema
from flowrun.excerpts import one_line
from flowrun.runtime.typed_answers import ANY, SHOWN, about, are_numbered, as_typed, choices_of, how_to_type, items_of
from flowrun.spec.json_types import declared_types
from flowrun.spec.model import JSON
from flowrun.spec.references import follow_references

_DEFINITIONS: Final = ("$defs", "definitions")


class Condition(NamedTuple):
    """A field is asked for if another one has this value, or with ``unless``, another value."""

    path: tuple[str, ...]
    value: JSON
    unless: bool = False


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a form. ``path`` is empty for an answer that is one value; ``schema`` has its references resolved.

    Attributes:
        optional: the field may be left out.
        nullable: left out, it is null.
        within: the number of names in ``path`` whose objects are required, also if all their fields are left out.
        null: the number of names in ``path`` that lead to an object which is null if all its fields are left out; or 0.
        around: the schemas of the objects that ``path`` leads through.
        validate: checks a value of the field.
        rows: the fields of each object of a list of objects.
        conditions: those under which it is asked for, and part of the answer.
    """

    path: tuple[str, ...]
    schema: Mapping[str, JSON]
    optional: bool
    nullable: bool
    within: int
    validate: Validator
    null: int = 0
    around: tuple[Mapping[str, JSON], ...] = ()
    rows: "tuple[Field, ...]" = ()
    conditions: tuple[Condition, ...] = ()

    def is_asked(self, values: Mapping[tuple[str, ...], JSON]) -> bool:
        """Return whether the field is asked for, with these values of the fields before it."""
        return all((values.get(one.path) == one.value) is not one.unless for one in self.conditions)

    @property
    def has_default(self) -> bool:
        """Return whether the schema has a default that it allows."""
        return "default" in self.schema and self.validate(self.schema["default"]) is None

    @property
    def default(self) -> JSON | UnsetType:
        """Return the default that the schema has and allows."""
        return self.schema["default"] if self.has_default else UNSET

    def with_default(self, default: JSON | UnsetType) -> "Field":
        """Return the field with another default, or with none."""
        schema = {key: value for key, value in self.schema.items() if key != "default"}
        return msgspec.structs.replace(self, schema=schema if default is UNSET else {**schema, "default": default})

    def row_of(self, item: JSON) -> "tuple[Field, ...]":
        """Return the fields of an object of the list, with its members as defaults; none if they do not make it."""
        row = tuple(field.with_default(_member(item, field.path)) for field in self.rows)
        return row if is_exactly(assemble(row, _defaults(row)), item) else ()

    def lines(self) -> Iterator[str]:
        """Yield what is shown above the field: what it is about, and its choices."""
        if self.path and (said := about(self.schema)):
            yield f"{'.'.join(self.path)}: {said}"
        choices = choices_of(self.schema) or choices_of(items_of(self.schema))
        numbered = are_numbered(choices)
        width = max((len(choice.name) for choice in choices), default=0)
        for number, choice in enumerate(choices, 1):
            name = f"{choice.name:<{width}}  {choice.note}".rstrip()
            yield f"{number:>3}  {name}" if numbered else f"     {name}"

    def prompt(self, values: Mapping[tuple[str, ...], JSON]) -> str:
        """Return the prompt of the field: its name, how it is typed, and what an empty line means.

        Args:
            values: the values of the fields that have been answered before.
        """
        if self.path in values:
            empty = f"Enter keeps {one_line(as_typed(values[self.path]), SHOWN)}"
        elif self.has_default:
            empty = f"Enter is {one_line(as_typed(self.schema['default']), SHOWN)}"
        else:
            empty = "Enter is nothing" if self.nullable else "Enter leaves it out" if self.optional else ""
        how = how_to_type(self.schema)
        how = "how many" if self.rows else "text" if self.path and how == ANY else how
        name = ".".join(self.path)
        return f"{name}{', ' if name and how else ''}{how}{f' ({empty})' if empty else ''}"


def fields_of(schema: Mapping[str, JSON]) -> list[Field]:
    """Return the fields of a form for an answer: one, unless the answer is an object with declared properties."""
    return list(_Reader(schema).fields((), schema, _Around()))


def assemble(fields: Sequence[Field], values: Mapping[tuple[str, ...], JSON]) -> JSON:
    """Return the answer of the values of its fields."""
    answer: dict[str, Any] = {}
    for field in fields:
        if not field.path:
            return values.get(())
        if not field.is_asked(values):
            continue
        is_given = field.path in values
        at = answer
        for name in field.path[:-1] if is_given else field.path[: field.within]:
            at = at.setdefault(name, {})
        if is_given:
            at[field.path[-1]] = values[field.path]
    for field in fields:
        around = _member(answer, field.path[: field.null - 1]) if field.null and field.is_asked(values) else None
        if isinstance(around, dict):
            around.setdefault(field.path[field.null - 1], None)
    return answer


def is_exactly(one: JSON | UnsetType, other: JSON | UnsetType) -> bool:
    """Return whether two values are the same JSON: 1 is not 1.0; the order of keys does not count."""
    if one is UNSET or other is UNSET:
        return one is other
    return dumps(one, sort_keys=True) == dumps(other, sort_keys=True)


def _member(value: JSON, path: Sequence[str]) -> JSON | UnsetType:
    """Return what a path leads to in a value."""
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return UNSET
        value = value[name]
    return value


def _defaults(fields: Sequence[Field]) -> dict[tuple[str, ...], JSON]:
    return {field.path: field.schema["default"] for field in fields if "default" in field.schema}


class _Around(NamedTuple):
    """What the objects around a part of a schema mean for its fields.

    Attributes:
        bare: an object around it has a default without it, so its own default does not count.
    """

    optional: bool = False
    bare: bool = False
    within: int = 0
    null: int = 0
    schemas: tuple[Mapping[str, JSON], ...] = ()
    seen: tuple[JSON, ...] = ()


class _Reader(NamedTuple):
    """Reads the fields of a schema. References start at ``root``."""

    root: Mapping[str, JSON]

    def fields(self, path: tuple[str, ...], schema: JSON, around: _Around) -> list[Field]:
        resolved = _resolve(schema, self.root)
        if around.bare:
            resolved = {key: value for key, value in resolved.items() if key != "default"}
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if _has_fields(resolved) and reference not in around.seen:
            seen = (*around.seen, reference) if isinstance(reference, str) else around.seen
            fields = self._members(path, resolved, around._replace(seen=seen))
            if self._keep_default(fields, path, resolved):
                return fields
        return [self._field(path, schema, resolved, around)]

    def _members(self, path: tuple[str, ...], schema: Mapping[str, JSON], around: _Around) -> list[Field]:
        """Return the fields of the members of an object."""
        nullable, default = "null" in declared_types(schema), schema.get("default", UNSET)
        left_out = around.optional or nullable
        required = names if isinstance(names := schema.get("required"), list) else []
        is_null = nullable and bool(path) and (not around.optional or default is None)
        fields: list[Field] = []
        for name, part, conditions, is_needed in _members(path, schema):
            inner = around._replace(
                optional=left_out or not (is_needed or name in required),
                bare=around.bare or (isinstance(default, Mapping) and name not in default and name not in required),
                within=around.within if left_out else len(path),
                null=len(path) if is_null else around.null,
                schemas=(*around.schemas, schema) if path else (),
            )
            if isinstance(default, Mapping) and name in default:
                part = {**(part if isinstance(part, Mapping) else {}), "default": default[name]}
            fields += (
                msgspec.structs.replace(field, conditions=(*conditions, *field.conditions))
                for field in self.fields((*path, name), part, inner)
            )
        return fields

    def _keep_default(self, fields: Sequence[Field], path: tuple[str, ...], schema: Mapping[str, JSON]) -> bool:
        """Return whether the fields of an object make its default, if it has one: else some of it would be lost."""
        default = schema.get("default", UNSET)
        if default is UNSET:
            return True
        if isinstance(default, Mapping) and not default.keys() <= schema["properties"].keys():
            return False
        if _part_validator(schema, self.root)(default) is not None:
            return True  # it is no answer, but some of its members may be
        made = _member(assemble(fields, _defaults(fields)), path)
        return is_exactly(made, default) or (made is UNSET and default is None)

    def _field(self, path: tuple[str, ...], schema: JSON, resolved: Mapping[str, JSON], around: _Around) -> Field:
        nullable = "null" in declared_types(resolved) or None in (resolved.get("enum") or ())
        items = _resolve(items_of(resolved), self.root)
        rows = items.get("properties") and declared_types(items) <= {"object"} and items not in around.seen
        inner = _Around(seen=(*around.seen, items))
        return Field(
            path=path,
            schema=resolved,
            optional=around.optional or nullable,
            nullable=nullable and not around.optional,
            within=around.within,
            null=around.null,
            around=around.schemas,
            rows=tuple(self.fields((), items, inner)) if rows else (),
            validate=compile_schema(self.root)
            if schema is self.root
            else _part_validator(_followed(schema, self.root), self.root),
        )

    def _validator(self, schema: JSON) -> Validator:
        if schema is self.root:
            return compile_schema(self.root)
        return _part_validator(_followed(schema, self.root), self.root)


def _has_fields(schema: Mapping[str, JSON]) -> bool:
    """Return whether a schema is that of an object with declared properties."""
    properties = schema.get("properties")
    is_object = declared_types(schema) <= {"object", "null"} and isinstance(properties, Mapping) and bool(properties)
    return is_object and not choices_of(schema)


def _members(
    path: tuple[str, ...], schema: Mapping[str, JSON]
) -> Iterator[tuple[str, JSON, tuple[Condition, ...], bool]]:
    """Yield the properties of an object; those of ``then`` and ``else`` with the value of a property that they need,
    and whether they are required then.
    """
    yield from ((name, part, (), False) for name, part in schema["properties"].items())
    tested = schema.get("if")
    tests = tested.get("properties") if isinstance(tested, Mapping) else None
    if not isinstance(tests, Mapping) or len(tests) != 1:
        return
    ((tested_name, test),) = tests.items()
    if not isinstance(test, Mapping) or "const" not in test:
        return
    for keyword, unless in (("then", False), ("else", True)):
        branch = schema.get(keyword)
        further = branch.get("properties") if isinstance(branch, Mapping) else None
        required = branch.get("required") if isinstance(branch, Mapping) else None
        for name, part in further.items() if isinstance(further, Mapping) else ():
            if name not in schema["properties"]:
                is_needed = isinstance(required, list) and name in required
                yield name, part, (Condition((*path, tested_name), test["const"], unless),), is_needed


def _part_validator(part: Mapping[str, JSON], root: Mapping[str, JSON]) -> Validator:
    """Compile the validator of a part of a schema.

    References to definitions mean the same there; with others, only the answer as a whole is checked.
    """
    alone = {**{key: root[key] for key in _DEFINITIONS if key in root}, **part}
    references = re.findall(r'"\$(?:ref|dynamicRef)": "([^"]*)', dumps(alone))
    if all(reference.startswith(("#/$defs/", "#/definitions/")) for reference in references):
        return compile_schema(alone)
    return lambda value: None


def _resolve(schema: JSON, root: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return a schema with its own reference, and that of its items, replaced by what they lead to.

    A schema that may also be null is its other part, with null as a further type.
    """
    resolved = _followed(schema, root)
    for keyword in ("anyOf", "oneOf"):
        parts = resolved.get(keyword)
        if isinstance(parts, list) and len(parts) == 2 and {"type": "null"} in parts:
            other = _resolve(next(part for part in parts if part != {"type": "null"}), root)
            if (types := declared_types(other)) or "enum" in other:
                resolved = _or_null(other, types, {key: value for key, value in resolved.items() if key != keyword})
    if "const" in resolved:
        resolved.setdefault("default", resolved["const"])
    if isinstance(resolved.get("items"), Mapping):
        resolved["items"] = _resolve(resolved["items"], root) if "$ref" in resolved["items"] else resolved["items"]
    return resolved


def _followed(schema: JSON, root: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return a schema with its own reference replaced by what it leads to."""
    followed: dict[str, JSON] = {}
    for part in reversed(list(follow_references(schema, root))[:8]):
        followed |= {key: value for key, value in part.items() if key not in ("$ref", *_DEFINITIONS)}
    return followed


def _or_null(other: Mapping[str, JSON], types: Collection[str], around: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return a schema that also allows null, with the keywords around it."""
    merged = {**other, **around}
    if types:
        merged["type"] = [*sorted({*types} - {"null"}), "null"]
    if isinstance(values := merged.get("enum"), list):
        merged["enum"] = [*values, *([] if None in values else [None])]
    return merged
