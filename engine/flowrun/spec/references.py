"""Follows the ``$ref`` of JSON Schemas within one schema. Nothing is fetched."""

from collections.abc import Iterator, Mapping

from flowrun.spec.model import JSON


def find_target(root: JSON, reference: str) -> JSON:
    """Return the part of a schema that a reference in it leads to; None if it leads to none, or to another document."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    for part in reference.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(root, Mapping) or key not in root:
            return None
        root = root[key]
    return root


def follow_references(schema: JSON, root: JSON) -> Iterator[Mapping[str, JSON]]:
    """Yield a subschema and every further one on its chain of ``$ref``; an empty one for ``true`` and ``false``."""
    while isinstance(schema, Mapping):
        yield schema
        reference = schema.get("$ref")
        schema = find_target(root, reference) if isinstance(reference, str) else None
    if schema is not None:
        yield {}
