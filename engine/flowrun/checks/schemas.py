"""FR505: every JSON Schema that a spec holds is a schema itself."""

from collections.abc import Iterator, Mapping
from typing import Final

from flowrun.checks.subject import Subject
from flowrun.errors import Issue, Path
from flowrun.graph import compile_schema
from flowrun.spec import JSON, Chat, Wait

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def check_schemas(subject: Subject) -> Iterator[Issue]:
    """Find JSON Schemas that no validator takes."""
    spec = subject.spec
    for name, schema in spec.inputs.items():
        yield from _schema(subject, ("inputs", name), schema)
        yield from _default(subject, name)
    for name, tool in spec.tools.items():
        if tool.parameters is not None and subject.has(("tools", name)):
            yield from _schema(subject, ("tools", name, "parameters"), tool.parameters)
    for name, state in spec.states.items():
        if isinstance(state, Chat) and state.response_format is not None and state.response_format.schema is not None:
            yield from _schema(subject, ("states", name, "response_format", "schema"), state.response_format.schema)
        elif isinstance(state, Wait):
            yield from _schema(subject, ("states", name, "schema"), state.schema)


def _schema(subject: Subject, path: Path, schema: Mapping[str, JSON]) -> Iterator[Issue]:
    import jsonschema_rs

    plain = dict(schema)
    if not jsonschema_rs.meta.is_valid({"$schema": _DIALECT, **plain}):
        yield from _explain(subject, path, plain)
        return
    try:
        jsonschema_rs.Draft202012Validator(plain)
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        said = str(exc).partition("\n")[0]  # what follows shows the schema to itself
        remedy = "a reference must lead to a part of this schema, and a pattern must be a regular expression"
        yield subject.issue("FR505", path, f"no usable JSON Schema: {said}", remedy)


def _explain(subject: Subject, path: Path, schema: Mapping[str, JSON]) -> Iterator[Issue]:
    """Say what is wrong with a schema: the Python library does that better, and takes long to import."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema):
        nearest = best_match([error]) or error
        where = (*path, *nearest.absolute_path)
        yield subject.issue("FR505", where, f"no valid JSON Schema: {nearest.message}", "see JSON Schema 2020-12")


def _default(subject: Subject, name: str) -> Iterator[Issue]:
    """A default is checked as any other value of its input."""
    schema = subject.spec.inputs[name]
    if "default" not in schema:
        return
    try:
        wrong = compile_schema(schema)(schema["default"])
    except Exception:
        return  # the schema itself is wrong, and _schema says so
    if wrong is not None:
        remedy = "change the default or the schema"
        yield subject.issue("FR506", ("inputs", name, "default"), f"the default does not match: {wrong}", remedy)
