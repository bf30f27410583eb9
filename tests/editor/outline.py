"""What a schema allows at each place of a document, found by the meaning of its keywords, and where the keys stand."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jsonschema
import yaml

Schema = Mapping[str, Any]


class Level(NamedTuple):
    """A mapping of a document: its node, and the schemas of all properties that it may have."""

    node: yaml.MappingNode
    properties: Mapping[str, Schema]

    def keys(self) -> list[str]:
        """Return the keys that are there."""
        return [key.value for key, _ in self.node.value]


class Outline:
    """The mappings of documents, with what one schema says of them."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._validator = jsonschema.Draft202012Validator(root)

    def levels(self, text: str) -> Iterator[Level]:
        """Yield the mappings of a document for which the schema names properties, from the outside in."""
        node = yaml.compose(text, yaml.CSafeLoader)
        assert node is not None
        yield from self._walk(node, [self._root])

    def descriptions(self, schema: Schema, node: yaml.Node) -> list[str]:
        """Return the descriptions of a schema and of those that it consists of, for the value of a node and in general.

        The description of a mapping hides that of the property that holds it.
        """
        parts = [part for value in (None, _construct(node)) for part in self._parts(schema, value)]
        return [part["description"] for part in parts if "description" in part]

    def _walk(self, node: yaml.Node, schemas: list[Schema]) -> Iterator[Level]:
        value = _construct(node)
        parts = [part for schema in schemas for part in self._parts(schema, value)]
        if isinstance(node, yaml.MappingNode):
            properties: dict[str, Schema] = {}
            for part in parts:
                properties.update({k: v for k, v in part.get("properties", {}).items() if isinstance(v, Mapping)})
            if properties:
                yield Level(node, properties)
            for key, child in node.value:
                below = [properties[key.value]] if key.value in properties else _all(parts, "additionalProperties")
                yield from self._walk(child, below)
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                yield from self._walk(child, _all(parts, "items"))

    def _parts(self, schema: Schema, value: Any) -> Iterator[Schema]:
        """Yield a schema and those of its subschemas that say something about the same value."""
        yield schema
        for below in (*schema.get("allOf", ()), *schema.get("anyOf", ()), *schema.get("oneOf", ())):
            yield from self._parts(below, value)
        if "$ref" in schema:
            yield from self._parts(self._at(schema["$ref"]), value)
        if "if" in schema:
            holds = self._validator.evolve(schema=schema["if"]).is_valid(value)
            yield from self._parts(schema.get("then" if holds else "else", {}), value)

    def _at(self, reference: str) -> Schema:
        target: Any = self._root
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        found: Schema = target
        return found


def _all(parts: list[Schema], keyword: str) -> list[Schema]:
    return [part[keyword] for part in parts if isinstance(part.get(keyword), Mapping)]


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()
