"""FR505 to FR509: every JSON Schema in a spec is valid and means something, and defaults match their schemas."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from flowrun.checks.schema_sense import faults_of_schema
from flowrun.checks.subject import Severity, Subject
from flowrun.core.json_schema import compile_schema
from flowrun.errors import Issue, Path
from flowrun.spec.model import JSON, MCP, ChatState, Holds, ResponseFormat
from flowrun.spec.parts import parts_of

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DIALECTS: Final = frozenset(
    {
        _DIALECT,
        "https://json-schema.org/draft/2019-09/schema",
        *(f"http://json-schema.org/draft-0{number}/schema" for number in (4, 6, 7)),
    }
)
_UNRESOLVED: Final = re.compile(r"Resource ('.*') is not present in a registry.*")
_DATA: Final = frozenset({"enum", "const", "default", "examples"})
"""Keywords whose values are data, not schemas."""


def check_schemas(subject: Subject) -> Iterator[Issue]:
    """Find JSON Schemas that the validator rejects, and defaults of inputs that do not match."""
    spec = subject.spec
    for name, schema in spec.inputs.items():
        yield from _schema(subject, ("inputs", name), schema)
        yield from _default(subject, name)
    for name, tool in spec.tools.items():
        if tool.parameters is not None and subject.has(("tools", name)):
            yield from _schema(subject, ("tools", name, "parameters"), tool.parameters)
        elif tool.parameters is not None:
            yield from _schema_of_server(subject, tool.entrypoint or "", tool.parameters)
    for name, state in spec.states.items():
        if isinstance(state, ChatState) and state.response_format is not None and state.response_format.is_text:
            yield from _pattern(subject, ("states", name, "response_format", "pattern"), state.response_format)
        for part in parts_of(state, Holds.SCHEMA):
            at: Path = ("states", name, *part.path)
            yield from _schema(subject, at, part.value)
            if part.path[0] == "response_format" and not part.value:
                message = "an empty schema allows everything, so the reply may be any JSON value"
                remedy = "describe the value, such as {type: object, properties: {answer: {type: string}}}"
                yield subject.issue("FR508", at, message, remedy, severity="warning")


def _pattern(subject: Subject, path: Path, form: ResponseFormat) -> Iterator[Issue]:
    try:
        compile_schema(form.value_schema)
    except ValueError:
        remedy = "write one such as [A-Z]{3}-[0-9]+, without look-around and back-references"
        yield subject.issue("FR205", path, f"{form.pattern!r} is no regular expression that is known here", remedy)


def _schema(subject: Subject, path: Path, schema: Mapping[str, JSON]) -> Iterator[Issue]:
    import jsonschema_rs

    plain = dict(schema)
    if foreign := list(_foreign_dialects(plain, path)):
        for where, dialect in foreign:
            message = f"{dialect!r} names no version of JSON Schema that is known"
            yield subject.issue("FR505", where, message, f"leave $schema out, or write {_DIALECT}")
        return
    if not jsonschema_rs.meta.is_valid({"$schema": _DIALECT, **plain}):
        yield from _explain(subject, path, plain)
        return
    if reason := _why_unusable(plain):
        remedy = "a reference must lead to a part of this schema, and a pattern must be a regular expression"
        yield subject.issue("FR505", path, f"no usable JSON Schema: {reason}", remedy)
        return
    is_input = path[0] == "inputs"
    for found in faults_of_schema(plain):
        if is_input and found.path == ("default",):
            continue  # FR506
        severity: Severity = "error" if found.certain else "warning"
        yield subject.issue(found.code, (*path, *found.path), found.message, found.remedy, severity=severity)


def _schema_of_server(subject: Subject, entrypoint: str, schema: Mapping[str, JSON]) -> Iterator[Issue]:
    """Check whether calls can be checked by the schema of an MCP server's tool, which somebody else wrote."""
    server, _, tool = entrypoint.removeprefix(MCP).partition("/")
    at: Path = ("mcp_servers", server)
    if not entrypoint.startswith(MCP) or not subject.has(at):
        return  # it is inherited
    if reason := _why_unusable(schema):
        named: Path = (*at, "tools", tool)
        message = f"the arguments of the server's tool {tool!r} have no usable JSON Schema: {reason}"
        remedy = "leave it out: name the tools to offer under the server's 'tools'"
        yield subject.issue("FR505", named if subject.has(named) else at, message, remedy, key=True)


def _why_unusable(schema: Mapping[str, JSON]) -> str | None:
    """Return why values cannot be checked by a schema, or None."""
    try:
        compile_schema(schema)
    except ValueError as exc:
        return _UNRESOLVED.sub(r"it refers to \1, and nothing is fetched", str(exc).partition("\n")[0])
    return None


def _foreign_dialects(schema: JSON, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the unknown values of ``$schema`` with their paths. The validator would fetch them."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _foreign_dialects(item, (*path, index))
    elif isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "$schema" and isinstance(value, str):
                if value.removesuffix("#") not in _DIALECTS:
                    yield (*path, key), value
            elif key not in _DATA:
                yield from _foreign_dialects(value, (*path, key))


def _explain(subject: Subject, path: Path, schema: Mapping[str, JSON]) -> Iterator[Issue]:
    """Yield the errors of a schema. The Python library is slow to import, but its messages are better."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema):
        nearest = best_match([error]) or error
        where = (*path, *nearest.absolute_path)
        yield subject.issue("FR505", where, f"no valid JSON Schema: {nearest.message}", "see JSON Schema 2020-12")


def _default(subject: Subject, name: str) -> Iterator[Issue]:
    """Check the default of an input as any other value of the input."""
    schema = subject.spec.inputs[name]
    if "default" not in schema:
        return
    try:
        wrong = compile_schema(schema)(schema["default"])
    except Exception:
        return  # the schema itself is wrong; _schema reports it
    if wrong is not None:
        remedy = "change the default or the schema"
        yield subject.issue("FR506", ("inputs", name, "default"), f"the default does not match: {wrong}", remedy)
