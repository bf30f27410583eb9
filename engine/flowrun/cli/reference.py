"""Renders the Markdown reference of a JSON Schema from its titles and descriptions.

It has one section per part and one table row per property. A part is an object whose schema has ``title`` and
``properties``; other schemas are explained in the row of their property.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from flowrun.spec.references import follow_references

Schema = Mapping[str, Any]

NAMES: Final = {"string": "text", "object": "mapping", "array": "list", "integer": "whole number", "null": "null"}
_ANYTHING: Final = "any JSON value"
_MANY_VARIANTS: Final = 4
_MANY: Final = 12
"""The maximum number of values of an enumeration that are listed; a longer one is shown by its title."""


def render_reference(schema: Schema, *, heading: str, preface: str) -> str:
    """Render the reference of a schema. Each ``$ref`` in it must point into the schema itself."""
    return _Reference(schema).render(heading, preface)


class _Reference:
    """A schema and its parts, in the order of the first reference to them."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._parts: dict[str, Schema] = {}
        self._texts: dict[str, Schema] = {}
        self._shared: dict[int, Sequence[str]] = {}
        self._chooser: dict[int, str] = {}

    def render(self, heading: str, preface: str) -> str:
        self._collect()
        blocks = [f"# {heading}", preface, _sentence(self._root), *self._table(self._root)]
        for title, part in self._parts.items():
            blocks += [f"## {title}", *filter(None, [_sentence(part)]), *self._part(part), *_examples(part)]
        if self._texts:
            blocks += ["## Forms of text", *self._forms()]
        return "\n\n".join(blocks) + "\n"

    # --- parts ----------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        pending: list[Any] = [self._root]
        while pending:
            node = pending.pop(0)
            for schema in _below(node):
                target = self._resolved(schema)
                title = target.get("title", "")
                if _is_part(target):
                    if title not in self._parts and target is not self._root:
                        self._parts[title] = target
                        if not self._is_like_root(target):
                            pending.append(target)
                elif target.get("type") == "string" and "(" in title:
                    self._texts.setdefault(title, target)
                elif target is not schema or not _is_part(schema):
                    pending.append(target)

    def _part(self, part: Schema) -> list[str]:
        if self._is_like_root(part):
            names = ", ".join(f"`{name}`" for name in part["properties"])
            return [f"It may have, as the file itself: {names}."]
        variants = _variants(part)
        if not variants:
            return [*self._table(part, without=self._shared.get(id(part), ())), *self._shared_note(part)]
        rows = [[_values(values), self._kind(schema)] for _, values, schema in variants]
        blocks = [*self._table(part), render_table([f"`{variants[0][0]}`", "what else it has"], rows)]
        if shared := self._share([self._resolved(schema) for _, _, schema in variants], str(part["title"])):
            blocks += ["Most of them also have:", *self._table({"properties": shared})]
        return blocks

    def _share(self, variants: Sequence[Schema], title: str) -> dict[str, Any]:
        """Return the properties that most variants share; they are explained once, in the part ``title``."""
        if len(variants) < _MANY_VARIANTS:
            return {}
        first = {name: schema for variant in reversed(variants) for name, schema in variant["properties"].items()}
        shared = {
            name: schema
            for name, schema in first.items()
            if sum(variant["properties"].get(name) == schema for variant in variants) > len(variants) / 2
        }
        for variant in variants:
            self._shared[id(variant)] = [name for name in variant["properties"] if name in shared]
            self._chooser[id(variant)] = title
        return shared

    def _shared_note(self, part: Schema) -> list[str]:
        names = ", ".join(f"`{name}`" for name in self._shared.get(id(part), ()))
        chooser = self._chooser.get(id(part), "")
        return [f"Also, as [{chooser}](#{_anchor(chooser)}) says: {names}."] if names else []

    def _is_like_root(self, part: Schema) -> bool:
        """Return whether all properties of a part are also properties of the file itself."""
        return (
            part is not self._root
            and len(part["properties"]) > 1
            and part["properties"].keys() <= self._root["properties"].keys()
        )

    def _table(self, part: Schema, without: Sequence[str] = ()) -> list[str]:
        required = part.get("required", ())
        rows = [
            [
                f"`{name}`{' (required)' if name in required else ''}",
                self._kind(schema),
                self._default(schema),
                self._meaning(schema),
            ]
            for name, schema in part["properties"].items()
            if name not in without and schema is not True and list(schema) != ["const"]
        ]
        return [render_table(["property", "type", "default", "meaning"], rows)] if rows else []

    def _forms(self) -> list[str]:
        rows = []
        for title, schema in self._texts.items():
            name, _, form = title.partition(" (")
            rows.append([name, form.removesuffix(")"), _values(schema.get("examples", ()))])
        return [render_table(["text", "form", "example"], rows)]

    # --- cells ----------------------------------------------------------------------------------------------------

    def _kind(self, schema: Any) -> str:
        """Return a short text for the type of a value."""
        target = self._resolved(schema)
        if _is_part(other := self._resolved(target.get("else", {}))):
            target = other
        if choices := list(self._choices(target)):
            return " or ".join(dict.fromkeys(map(self._kind, choices)))
        title = str(target.get("title", ""))
        if title in self._parts and _is_part(target):
            return f"[{title}](#{_anchor(title)})"
        if "const" in target:
            return _code(target["const"])
        if "enum" in target and (len(target["enum"]) <= _MANY or not title):
            return ", ".join(map(_code, target["enum"]))
        for keyword in ("anyOf", "oneOf"):
            if keyword in target:
                return " or ".join(
                    dict.fromkeys(self._kind(option) for option in target[keyword] if "required" not in option)
                )
        return self._kind_by_type(target, title)

    def _kind_by_type(self, target: Schema, title: str) -> str:
        types = target.get("type", target.get("else", {}).get("type"))
        if types == "array":
            return f"list of {self._kind(target['items'])}" if "items" in target else "list"
        if types == "object":
            members = target.get("additionalProperties")
            return f"mapping of names to {self._kind(members)}" if isinstance(members, Mapping) else "mapping"
        if title:
            return str(title.partition(" (")[0]) + (" or null" if "null" in (types or ()) else "")
        if isinstance(types, list):
            return " or ".join(NAMES.get(str(name), str(name)) for name in types)
        return NAMES.get(types, types) if isinstance(types, str) else _ANYTHING

    def _choices(self, target: Schema) -> Iterator[Any]:
        """Yield the parts of which conditions choose one, the last of them first."""
        if "then" in target and _is_part(self._resolved(target["then"])):
            other = target["else"]
            yield from list(self._choices(self._resolved(other))) or [other]
            yield target["then"]

    def _default(self, schema: Any) -> str:
        for level in follow_references(schema, self._root):
            if "default" in level:
                return _code(level["default"])
        return ""

    def _meaning(self, schema: Any) -> str:
        """Return the first description and the first example along the schema's chain of references."""
        levels = list(follow_references(schema, self._root))
        description = next((level["description"] for level in levels if "description" in level), "")
        examples = next((level["examples"] for level in levels if level.get("examples")), ())
        simple = [example for example in examples if not isinstance(example, (dict, list)) or len(str(example)) < 60]
        if not simple or _is_part(levels[-1]):
            return _escaped(description)
        return f"{_escaped(description)} Example: {_code(simple[0])}.".strip()

    def _resolved(self, schema: Any) -> Schema:
        """Return the schema at the end of a chain of references; empty for the schemas ``true`` and ``false``."""
        last: Schema
        *_, last = follow_references(schema, self._root)
        return last


def _below(schema: Schema) -> Iterator[Any]:
    """Yield the direct subschemas of a schema."""
    for keyword in ("properties", "patternProperties"):
        yield from (value for value in schema.get(keyword, {}).values() if isinstance(value, Mapping))
    for keyword in ("items", "additionalProperties", "then", "else"):
        if isinstance(schema.get(keyword), Mapping):
            yield schema[keyword]
    for keyword in ("anyOf", "oneOf", "allOf"):
        yield from (value for value in schema.get(keyword, ()) if isinstance(value, Mapping))


def _is_part(schema: Schema) -> bool:
    return "title" in schema and bool(schema.get("properties")) and "type" in schema


def _variants(part: Schema) -> list[tuple[str, Sequence[Any], Any]]:
    """Return the parts that the value of a property chooses, as (property, values, schema)."""
    found = []
    for option in part.get("allOf", ()):
        for name, condition in option.get("if", {}).get("properties", {}).items():
            if "then" in option and ("const" in condition or "enum" in condition):
                found.append((name, condition.get("enum", [condition.get("const")]), option["then"]))
    return found


def _sentence(schema: Schema) -> str:
    return _escaped(schema.get("description", ""))


def _examples(part: Schema) -> list[str]:
    texts = [yaml.safe_dump(example, sort_keys=False, allow_unicode=True) for example in part.get("examples", ())]
    return [f"```yaml\n{text.rstrip()}\n```" for text in texts]


def _values(values: Sequence[Any]) -> str:
    return ", ".join(map(_code, values))


def _code(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _escaped(text: str) -> str:
    """Escape ``<name>`` and ``*``, which Markdown would read as HTML and emphasis."""
    return re.sub(r"([<>*\\])", r"\\\1", " ".join(text.split()))


def render_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a table without its empty columns."""
    used = [n for n in range(len(heads)) if any(row[n] not in ("", _ANYTHING) for row in rows)]
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line[n] for n in used)} |" for line in lines)


def _anchor(title: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    text = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return text.replace(" ", "-")
